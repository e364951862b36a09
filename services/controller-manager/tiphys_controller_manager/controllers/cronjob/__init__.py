"""Makes Jobs by the schedules of CronJobs."""
