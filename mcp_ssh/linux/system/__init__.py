"""A machine as a whole: platform, facts, processes, services, cron, environment."""
