"""What a login proves itself with: keys, passwords and answers."""
