"""Background tasks on a machine: their scripts and answers."""
