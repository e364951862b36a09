"""The controllers, one folder each: controller.py reconciles, plan.py decides."""
