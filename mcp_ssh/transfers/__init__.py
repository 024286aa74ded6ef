"""Files and trees between this machine and another one."""
