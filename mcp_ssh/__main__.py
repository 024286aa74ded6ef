"""`python -m mcp_ssh` is the `ssh-steward` command."""

from mcp_ssh.cli import main

if __name__ == "__main__":
    main()
