"""Ten thousand rules of a hostile machine's other programs keep no other caller waiting."""

import pytest

from mcp_ssh.linux.firewall.model import Family, FilterRule
from mcp_ssh.linux.firewall.nft_rules import LIMIT
from mcp_ssh.linux.firewall.other_rule_sets import RuleSet, explain_overruling, find_other_rule_sets
from mcp_ssh.sessions.query import parse_answer
from tests.support.bystander import bystander

OPEN = FilterRule("ipv4", "INPUT", 0, "", target="ACCEPT", protocol="tcp", ports="9999")
HEAD = "table inet filter {\n\tchain %s {\n\t\ttype filter hook input priority 0; policy accept;\n"


async def read_other_rule_sets(parts: dict[str, str], families: tuple[Family, ...], own: str) -> list[RuleSet]:
    """Parse the answer as the firewall's tools do."""

    def find(said: dict[str, str]) -> list[RuleSet]:
        return [each for family in families for each in find_other_rule_sets(said, family, own)]

    return await parse_answer(find, parts, len(parts["nft"]))


@pytest.mark.requirement("fault.R6")
@pytest.mark.parametrize("line", ["tcp dport 10000-65535 drop", "jump next", 'log prefix "', "tcp dport { 1, 2,"])
async def test_many_rules_keep_no_other_caller_waiting(line: str) -> None:
    text = (HEAD % "input" + f"\t\t{line}\n" * 20_000)[: LIMIT - 10]
    async with bystander():
        others = await read_other_rule_sets({"nft": text, "variant": ""}, ("ipv4", "ipv6"), "iptables")
    async with bystander():
        assert explain_overruling(others, OPEN) == []


@pytest.mark.requirement("fault.R6")
async def test_many_chains_that_jump_to_each_other_keep_no_other_caller_waiting() -> None:
    chains = "".join(f"\t}}\n\tchain c{each} {{\n\t\tjump c{each + 1}\n" for each in range(5000))
    text = HEAD % "input" + "\t\tjump c0\n" + chains + "\t\tdrop\n\t}\n}\n"
    async with bystander():
        (found,) = await read_other_rule_sets({"nft": text}, ("ipv4",), "iptables")
    assert [rule.text for rule in found.rules] == ["jump c0"]
