"""Logging in: against OpenSSH, and with a key that takes long to read."""

import asyncio

import anyio

from benchmarks.measure import Step, Turns, in_turns
from benchmarks.report import Row, ratio_row
from benchmarks.scene import CONFIG, USER, Api, Scene
from mcp_ssh.app import App
from mcp_ssh.sessions.login_planner import Logins
from mcp_ssh.sessions.target import Connect
from mcp_ssh.ssh.dial.dialer import Dialer, DialOptions
from tests.support.doors import caller


async def run(scene: Scene) -> list[Row]:
    """Logging in, and connecting in full, with ed25519; and for the second time with RSA-3072."""
    words = scene.host.ssh_argv(USER)
    argv = [*words[:-1], "-o", "KexAlgorithms=curve25519-sha256", words[-1], "true"]
    rsa = scene.folder / "rsa"
    argv_key = ["ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-N", "", "-f", str(rsa)]
    await anyio.run_process(argv_key)
    public = rsa.with_suffix(".pub").read_text().strip()
    await scene.outside(f"cp ~/.ssh/authorized_keys ~/.ssh/kept && echo '{public}' >> ~/.ssh/authorized_keys")
    try:
        async with scene.app() as app:
            api = Api(app)
            await _connected(api, scene, key=str(rsa))()

            async def ssh() -> None:
                process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL)
                await process.wait()

            steps: dict[str, Step] = {
                "ssh": ssh,
                "login": _logged_in(app, scene),
                "ours": _connected(api, scene),
                "rsa": _connected(api, scene, key=str(rsa)),
            }
            seen = await in_turns(steps, Turns(rounds=scene.size(9, 5), batch=scene.size(8, 3)))
    finally:
        await scene.outside("mv ~/.ssh/kept ~/.ssh/authorized_keys")
    return [
        ratio_row(
            "connect_login",
            "Connecting and logging in, host key verified, until the machine has said yes",
            "`ssh`, curve25519, `true`",
            seen.beside("login", "ssh"),
            0.4,
            because="the machine starts a process for each connection, half of the time, and both sides compute",
        ),
        ratio_row(
            "connect",
            "Connecting as session_connect does: the same, then what the account can do",
            "`ssh`, curve25519, `true`",
            seen.beside("ours", "ssh"),
            0.4,
            because="between its yes and the first channel sshd opens the session with PAM, for which everybody waits:"
            " of those 40 ms, as strace shows, pam_motd takes two fifths (it runs the scripts of update-motd.d),"
            " pam_systemd three tenths (it asks logind for a session), limits, environment, a process of the account"
            " and its bash the rest. What we ask is sent at once, both questions side by side",
        ),
        ratio_row(
            "connect_rsa",
            "The second connection with an RSA-3072 key",
            "the same with ed25519",
            seen.beside("rsa", "ours"),
            1.2,
            because="the signature itself is arithmetic",
        ),
    ]


def _connected(api: Api, scene: Scene, key: str | None = None) -> Step:
    async def step() -> None:
        await api.connect({**scene.login, **({"key_path": key} if key else {})})
        await api.disconnect()

    return step


def _logged_in(app: App, scene: Scene) -> Step:
    async def step() -> None:
        logins = Logins(caller(), CONFIG, app.hostkeys, app.find_named_target)
        login, _ = await logins.plan_login(Connect.model_validate(scene.login))
        dialer = Dialer(login, DialOptions(CONFIG.ssh.banner_timeout, CONFIG.ssh.auth_timeout))
        (await dialer.dial()).abort()
        await dialer.wait_closed()

    return step
