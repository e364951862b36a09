"""Device plugins of Tiphys."""
