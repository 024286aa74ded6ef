"""What a caller hears of a private key that cannot be used: which part is wrong, and what to do."""

import base64
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from mcp_ssh.errors import InvalidInput
from mcp_ssh.ssh.auth import private_keys

FORMS = {
    "openssh": ["-t", "ed25519"],
    "rsa in PEM": ["-t", "rsa", "-b", "2048", "-m", "PEM"],
    "ecdsa in PEM": ["-t", "ecdsa", "-m", "PEM"],
    "rsa in PKCS#8": ["-t", "rsa", "-b", "2048", "-m", "PKCS8"],
    "ecdsa in PKCS#8": ["-t", "ecdsa", "-m", "PKCS8"],
}


def made(folder: Path, form: str, passphrase: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-N", passphrase, "-f", folder / "key", *FORMS[form]], check=True)
    return folder / "key"


@pytest.mark.requirement("fault.R11")
@pytest.mark.parametrize("form", FORMS)
async def test_a_wrong_passphrase_is_told_as_one_in_every_form(tmp_path: Path, form: str) -> None:
    path = made(tmp_path, form, "right")
    content = SecretStr(base64.b64encode(path.read_bytes()).decode())
    for wrong in range(24):  # of legacy PEM, one wrong passphrase in 256 leaves something that reads as decrypted
        for load in (
            private_keys.from_path(str(path), SecretStr(f"no{wrong}")),
            private_keys.from_content(content, SecretStr("no")),
        ):
            with pytest.raises(InvalidInput, match="the passphrase does not open this key"):
                await load
    with pytest.raises(InvalidInput, match="no passphrase was given"):
        await private_keys.from_path(str(path), None)
    assert (await private_keys.from_path(str(path), SecretStr("right"))).public_data
    assert (await private_keys.from_content(content, SecretStr("right"))).public_data


@pytest.mark.requirement("fault.R11")
async def test_a_decryption_that_only_seems_right_is_a_wrong_passphrase_too(tmp_path: Path) -> None:
    data = made(tmp_path, "rsa in PEM", "right").read_bytes()
    told: set[str] = set()
    for number in range(600):
        with pytest.raises(InvalidInput) as caught:
            private_keys.parse(data, SecretStr(f"wrong{number}"), field="key_path")
        told.add(caught.value.message)
    assert told == {"key_passphrase: the passphrase does not open this key"}


@pytest.mark.requirement("fault.R11")
@pytest.mark.parametrize("encoded", [False, True])
async def test_a_key_in_another_form_says_what_to_do(tmp_path: Path, encoded: bool) -> None:
    plain = made(tmp_path, "openssh", "").read_text()
    putty = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: x\nPublic-Lines: 2\nAAAA\nBBBB\n"
    for text, message, hint in (
        (putty, "a PuTTY key", "puttygen"),
        (plain.replace("\n", "\\n"), "two characters", "base64"),
        (plain.replace("PRIVATE", "PUBLIC"), "not a private key", ".pub"),
    ):
        content = SecretStr(base64.b64encode(text.encode()).decode() if encoded else text)
        with pytest.raises(InvalidInput, match=message) as caught:
            await private_keys.from_content(content, None)
        assert hint in str(caught.value.hint)
        (tmp_path / "file").write_text(text)
        with pytest.raises(InvalidInput, match=r"key_path: ") as caught:
            await private_keys.from_path(str(tmp_path / "file"), None)
        # Of a file that is not a key at all it is not told what it is.
        said = "no private key can be read" if message == "not a private key" else message
        assert said in caught.value.message
    assert (await private_keys.from_content(SecretStr(plain), None)).public_data
