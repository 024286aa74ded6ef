"""`python -m mcp_ssh` is the `mcp-ssh` command."""

from mcp_ssh.cli import main

if __name__ == "__main__":
    main()
