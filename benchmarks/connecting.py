"""Logging in: against OpenSSH, and with a key that takes long to read."""

import asyncio

import anyio

from benchmarks.measure import Step, Turns, in_turns
from benchmarks.report import Row, ratio_row
from benchmarks.scene import USER, Api, Scene


async def run(scene: Scene) -> list[Row]:
    """Connecting with ed25519, and for the second time with RSA-3072."""
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
            await _login(api, scene, key=str(rsa))()

            async def ssh() -> None:
                process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL)
                await process.wait()

            steps: dict[str, Step] = {"ssh": ssh, "ours": _login(api, scene), "rsa": _login(api, scene, key=str(rsa))}
            seen = await in_turns(steps, Turns(rounds=scene.size(9, 5), batch=scene.size(8, 3)))
    finally:
        await scene.outside("mv ~/.ssh/kept ~/.ssh/authorized_keys")
    return [
        ratio_row(
            "connect",
            "Connecting and logging in, what the account can do included",
            "`ssh`, curve25519, `true`",
            seen.beside("ours", "ssh"),
            0.4,
            because="a bare asyncssh that logs in and runs `true` takes as long: of 110 ms, 45 are the login,"
            " the rest the machine opening the session (PAM), which any first command waits for; a second takes 8",
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


def _login(api: Api, scene: Scene, key: str | None = None) -> Step:
    async def step() -> None:
        await api.connect({**scene.login, **({"key_path": key} if key else {})})
        await api.disconnect()

    return step
