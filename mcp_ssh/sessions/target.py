"""What a caller gives to be connected to a machine: the arguments of `session_connect`, or what a name stands for."""

from pydantic import Field, field_validator

from mcp_ssh.params import HostName, LocalPath, LoginName, Params, Secret


class Connect(Params):  # noqa: D101 what stands here would be sent with every list of tools
    host: HostName | None = Field(
        default=None,
        max_length=255,
        description="Host name, address, saved connection, or a Host of the owner's ~/.ssh/config.",
    )
    port: int | None = Field(default=None, ge=1, le=65535, description="TCP port of its SSH server. Default 22.")
    username: LoginName | None = Field(default=None, max_length=255, description="Account to log in as.")
    password: Secret | None = Field(default=None, description="Password of that account.")
    interactive_answers: list[Secret] | None = Field(
        default=None,
        max_length=16,
        description="Answers to what the machine asks at login beside the password, in order, such as a one-time code.",
    )
    key_path: LocalPath | None = Field(
        default=None,
        max_length=4096,
        description="Private key file on the machine this server runs on; its certificate (-cert.pub) is used too.",
    )
    key_passphrase: Secret | None = Field(default=None, description="Passphrase of an encrypted private key.")
    key_content: Secret | None = Field(default=None, description="A private key itself, its file encoded as base64.")
    use_agent: bool = Field(default=False, description="Log in with the keys of this server's ssh-agent.")
    use_config: bool = Field(
        default=True, description="False: do not look into ~/.ssh/config (only ever read for its owner and admins)."
    )
    jump: HostName | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Machine to go through: the name of a saved connection, which logs in with its own secrets, or an"
        " alias.",
    )
    keepalive: bool = Field(default=True, description="Ask the machine now and then whether it is there.")
    retries: int = Field(default=3, ge=1, le=10, description="Tries in all on network failures; logins are tried once.")
    retry_delay: float = Field(
        default=1.0, ge=0.1, le=30, description="Seconds before the second try; doubled for each one after."
    )
    timeout: float | None = Field(
        default=None, gt=0, le=600, description="Seconds for everything, retries included. Default from config, 30."
    )

    @field_validator("host")
    @classmethod
    def _one_host(cls, host: str | None) -> str | None:
        if host is not None and any(each in host for each in " \t\r\n,/@"):
            raise ValueError(
                "must be a host name or an address alone; the account goes into username, the port into port"
            )
        return host.removeprefix("[").removesuffix("]") if host else host

    def time_limit_s(self) -> float:
        """Longer than any deadline inside."""
        return (self.timeout or 600.0) + 5.0
