"""Names of accounts: those of a directory service are taken wherever an account is."""

import pytest
from pydantic import ValidationError

from mcp_ssh.params import Become
from mcp_ssh.tools.system import chown, cron_add, cron_list, cron_remove

TAKEN = ["root", "CORP\\ann", "ann@corp.example", "CORP+ann", "host$", "jürgen", "1000", "_apt", "a.b-c_d"]
REFUSED = ["", "-x", "a b", "a:b", "a\nb", "a/b", "a;b", "$(x)", "a'b", "x" * 300]


@pytest.mark.requirement("fault.R13")
@pytest.mark.parametrize("name", TAKEN)
def test_an_account_of_a_directory_service_is_taken_by_every_tool(name: str) -> None:
    assert Become(user=name).user == name
    cron_list.params.model_validate({"user": name})
    cron_add.params.model_validate({"schedule": "@daily", "command": "true", "user": name})
    cron_remove.params.model_validate({"entry": "@daily true", "user": name})
    chown.params.model_validate({"path": "/srv/a", "owner": name})
    chown.params.model_validate({"path": "/srv/a", "owner": f"{name}:CORP\\domain users"})
    chown.params.model_validate({"path": "/srv/a", "owner": name, "group": "domain users"})


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_more_than_a_name_is_refused_everywhere(name: str) -> None:
    for model, arguments in (
        (Become, {"user": name}),
        (cron_list.params, {"user": name}),
        (chown.params, {"path": "/srv/a", "owner": f":{name}" if name == "a:b" else name}),
        (chown.params, {"path": "/srv/a", "owner": "root", "group": "a\nb" if name == "a b" else name}),
    ):
        with pytest.raises(ValidationError):
            model.model_validate(arguments)
