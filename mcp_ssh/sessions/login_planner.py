"""Where to, as whom, with what and by which way: a caller's wish and ~/.ssh/config made into logins."""

import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from pydantic import SecretStr

from mcp_ssh.config.models import Config
from mcp_ssh.errors import InvalidInput, Refused, ToolError
from mcp_ssh.host_patterns import Machine, admits, is_address, judges_addresses, known_name
from mcp_ssh.policy import address_matters, expect_not_local, expect_reach, may_use_defaults, may_use_identities
from mcp_ssh.sessions.host_lookup import address_unknown, addresses_if_known, host_of, identify, look_up
from mcp_ssh.sessions.target import Connect
from mcp_ssh.ssh.auth import private_keys as keys
from mcp_ssh.ssh.auth.login import Agent, Login
from mcp_ssh.ssh.auth.private_keys import Identities, KeyCandidate
from mcp_ssh.ssh.dial.algorithms import Algorithms, choose
from mcp_ssh.ssh.hostkeys.store import HostKeys
from mcp_ssh.ssh.openssh_config.aliases import alias_names
from mcp_ssh.ssh.openssh_config.resolve import DEFAULT_IDENTITIES, Jump, Settings, local_user, settings
from mcp_ssh.tool import Caller

if TYPE_CHECKING:
    import asyncssh

Resolver = Callable[[Caller, str], Awaitable[Mapping[str, Any] | None]]
"""What `session_connect` takes to reach the machine that a name means to a caller; `None` where it means none."""

MOST_HOPS = 8
_NAME = re.compile(r"[^\s,/@\[\]]{1,255}")
_SESSION_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class _Target:
    """A machine that this caller may reach, what the owner's config says of it, and whether its identities log in."""

    found: Settings
    machine: Machine
    through: str | None = None
    owned: bool = False


@dataclass(frozen=True)
class Logins:
    """Makes logins for one caller.

    ~/.ssh/config is read only for callers who may use the identities of the server's owner for the host they name.

    Attributes:
        named: What the name of a machine to go through stands for, if anything.
    """

    caller: Caller
    config: Config
    host_keys: HostKeys
    named: Resolver | None = None

    async def plan_login(self, wanted: Connect) -> tuple[Login, str | None]:
        """The login a caller wants, and the alias of ~/.ssh/config it is known by, where it is one.

        Configured secrets go to the configured host and account only: a call that names another host gets none of them.

        Raises:
            InvalidInput: No host or username, nothing to log in with, or a key or a config that cannot be used.
            Refused: This caller may not use key files or the agent of this server's owner, or not reach this machine,
                or one on the way to it.
            Unsupported: ~/.ssh/config asks for what this server cannot do.
        """
        auth = self.config.auth
        host = wanted.host or auth.default_host
        if not host:
            raise InvalidInput("host: is required", hint="give `host`, or set auth.default_host in config.json")
        given = wanted.username or (None if wanted.host else auth.default_username or None)
        target = await self._target(host, wanted, given)
        found, owned = target.found, target.owned
        if (wanted.key_path or wanted.use_agent) and not owned:
            raise Refused(
                "key_path and use_agent log in as this server's owner, which your role may not for this host",
                hint="send the key as `key_content`, or have the owner add the host to"
                " security.allow_server_identities",
            )
        username = given or found.username or auth.default_username or (local_user() if found.named else "")
        if not username:
            raise InvalidInput(
                "username: is required", hint="give `username`, or set auth.default_username in config.json"
            )
        port = wanted.port or found.port or self.config.ssh.default_port
        login = await self._with_secrets(self._bare(target, username, port), wanted, found, owned=owned)
        if not wanted.keepalive:
            login = replace(login, keepalive_s=0.0)
        if wanted.jump is not None:
            hops = await self._named_hops(wanted.jump)
            return replace(login, hops=hops, proxy_command=None), host if found.named else None
        return await self._on_its_way(login, found), host if found.named else None

    async def _target(self, host: str, wanted: Connect, username: str | None) -> _Target:
        """The machine that a host name means, with the owner's config where this caller may use it.

        Raises:
            InvalidInput: The host is neither a name nor an address.
            NetworkFailed: Its name cannot be looked up.
            Refused: This caller may not reach it.
        """
        if wanted.use_config and await self._offers_identities(host):
            found = await self._settings(host, username=username, port=wanted.port)
            target = await self._judge_target(found, host, from_here=wanted.jump is None)
            # Judged once more: with the addresses that are connected to, and with the alias's own host.
            if may_use_identities(self.caller, target.machine.with_names(host), self.config.security):
                return replace(target, owned=True)
        target = await self._judge_target(Settings(host, host), host, from_here=wanted.jump is None)
        return replace(target, owned=may_use_identities(self.caller, target.machine, self.config.security))

    async def _offers_identities(self, host: str) -> bool:
        """Whether the owner's config may be read for this caller and host."""
        security = self.config.security
        machine = Machine.of([host])
        if may_use_identities(self.caller, machine, security):
            return True
        if machine.addresses or not judges_addresses(security.allow_server_identities, excluding=False):
            return False
        addresses = await addresses_if_known(known_name(host))
        return may_use_identities(self.caller, replace(machine, addresses=addresses), security)

    async def _judge_target(self, found: Settings, host: str, *, from_here: bool) -> _Target:
        """A machine after its one look-up, judged by its name and all its addresses.

        Args:
            found: What the owner's config says of it.
            host: The name that the caller gave.
            from_here: No other machine is on the way to it, unless `found` names one.
        """
        if found.raw_proxy_command is None:
            found = replace(found, hostname=host_of(found.hostname))
        name = known_name(found.hostname)
        direct = from_here and not found.jumps and found.raw_proxy_command is None
        security, caller = self.config.security, self.caller
        if direct:
            addresses = await look_up(name, found.family)
        elif caller.hosts is None and not security.hosts and (caller.owner or not security.allow_server_identities):
            addresses = (name,) if is_address(name) else ()
        else:
            addresses = await addresses_if_known(name)
        machine = await identify(caller, security, [name], addresses)
        expect_reach(caller, machine)
        if direct:
            expect_not_local(caller, machine, security)
        through = None
        if not direct and not is_address(name) and address_matters(caller, machine):
            if not addresses or found.raw_proxy_command is not None:
                raise address_unknown(host, "host")
            through = addresses[0]
        return _Target(found, machine, through)

    async def _named_hops(self, name: str) -> tuple[Login, ...]:
        """The logins on the way by a name, which has its own secrets and may have a way of its own.

        Raises:
            InvalidInput: The name stands for nothing that this caller may use.
        """
        stands_for = None if self.named is None else await self.named(self.caller, name)
        if stands_for is None:
            raise InvalidInput(
                f"jump: there is no saved connection or alias {name[:80]!r} to go through",
                hint="save the machine with connection_add; connection_query lists those there are",
            )
        login, _ = await self.plan_login(Connect.model_validate(dict(stands_for)))
        return *login.hops, replace(login, hops=())

    async def alias(self, name: str) -> bool:
        """Whether a name is one of ~/.ssh/config, and this caller may use it. What reads as a session's id is none."""
        if not _NAME.fullmatch(name) or _SESSION_ID.fullmatch(name):
            return False
        if not may_use_identities(self.caller, Machine.of([name]), self.config.security):
            return False
        return (await self._settings(name)).named

    async def _settings(
        self, host: str, *, username: str | None = None, port: int | None = None, without_proxy: bool = False
    ) -> Settings:
        read = partial(settings, username=username, port=port, without_proxy=without_proxy)
        return await anyio.to_thread.run_sync(partial(read, host, may_exec=self.caller.owner))

    def _bare(self, target: _Target, username: str, port: int) -> Login:
        found = target.found
        return Login(
            host=found.hostname,
            caller=self.caller,
            machine=target.machine,
            through=target.through,
            port=port,
            username=username,
            host_keys=self.host_keys.reading(found.known_hosts(username, port), strict=found.strict),
            refused_methods=found.refused_methods,
            host_key_alias=found.host_key_alias,
            algorithms=self._algorithms(found, target.machine.with_names(found.host)),
            proxy_command=found.proxy_command(username, port),
            connect_timeout_s=found.connect_timeout_s,
            keepalive_s=found.alive_interval_s or self.config.ssh.keepalive_interval,
            bind_address=found.bind_address,
        )

    def _algorithms(self, found: Settings, machine: Machine) -> Algorithms:
        security = self.config.security
        sha1 = admits(machine, security.sha1_hosts)
        return choose(security.disabled_algorithms, found.algorithms, machine, sha1=sha1)

    async def _with_secrets(self, login: Login, wanted: Connect, found: Settings, *, owned: bool) -> Login:
        auth = self.config.auth
        given = any(
            (wanted.password, wanted.key_path, wanted.key_content, wanted.use_agent, wanted.interactive_answers)
        )
        configured = not given and may_use_defaults(wanted.host, wanted.username, auth)
        key_path = auth.default_key_path if configured else wanted.key_path
        passphrase = wanted.key_passphrase or (auth.default_key_passphrase if configured else None)
        password = wanted.password or (auth.default_password if configured and auth.default_password else None)
        loaded = await _load_keys(key_path, wanted.key_content, passphrase)
        login = replace(login, password=password, answers=tuple(wanted.interactive_answers or ()), keys=loaded)
        if wanted.use_agent:
            return replace(login, agent=self._asked_agent(login, found))
        problem = None
        if owned and wanted.use_config and not loaded and (found.identity_files or not (given or password)):
            login, problem = await self._with_identities(login, found, passphrase, alone=not (given or password))
        if not (login.keys or login.agent or login.password or login.answers):
            raise problem or InvalidInput(
                "nothing to log in with: no password, no key and no agent",
                hint="give one of `password`, `key_path`, `key_content`, `interactive_answers`, or `use_agent: true`",
                details={"wants": "password", "account": login.account},
            )
        return login

    def _asked_agent(self, login: Login, found: Settings) -> Agent:
        path = found.agent_path(login.username, login.port) or os.environ.get("SSH_AUTH_SOCK")
        if not path:
            raise InvalidInput("use_agent: this server runs without an ssh-agent", hint="use another way to log in")
        return Agent(path, needed=True)

    async def _with_identities(
        self, login: Login, found: Settings, passphrase: SecretStr | None, *, alone: bool
    ) -> tuple[Login, InvalidInput | None]:
        """The login with the owner's keys, as ssh would offer them.

        Args:
            login: The login.
            found: The options for it.
            passphrase: For keys that are encrypted.
            alone: Nothing else was given, so that the agent may offer all it has.
        """
        whom = (login.username, login.port)
        files = found.paths(found.identity_files or DEFAULT_IDENTITIES, *whom)
        own = await keys.identities(files, found.paths(found.certificate_files, *whom), passphrase)
        path = found.agent_path(*whom)
        agent = Agent(path, *_from_agent(own, found, alone=alone)) if path else None
        return replace(login, keys=own.keys, agent=agent), own.problem

    async def _on_its_way(self, login: Login, found: Settings) -> Login:
        hops = await self._hops(found.jumps, ())
        return replace(login, hops=tuple(hops))

    async def _hops(self, jumps: Sequence[Jump], behind: tuple[str, ...]) -> list[Login]:
        """Logins for machines on the way; the first one may have machines before it, by its own options.

        Raises:
            InvalidInput: They lead in a circle.
        """
        hops: list[Login] = []
        for index, jump in enumerate(jumps):
            if jump.host in behind or len(behind) + len(jumps) > MOST_HOPS:
                raise InvalidInput(
                    f"~/.ssh/config: ProxyJump leads in a circle, or over more than {MOST_HOPS} machines, at {jump}",
                    hint="correct ProxyJump",
                )
            found = await self._settings(jump.host, username=jump.username, port=jump.port, without_proxy=index > 0)
            target = await self._judge_target(found, jump.host, from_here=index == 0)
            found = target.found
            username = found.username or local_user()
            bare = self._bare(target, username, found.port or self.config.ssh.default_port)
            login, _ = await self._with_identities(bare, found, None, alone=True)
            hops += [*await self._hops(found.jumps, (*behind, jump.host)), login]
        return hops


async def is_owners_alias(name: str) -> bool:
    """Whether a name is an alias of the owner's ~/.ssh/config; no `Match exec` runs to find out."""
    if not _NAME.fullmatch(name):
        return False
    try:
        return (await anyio.to_thread.run_sync(settings, name)).named
    except ToolError:  # the file cannot be used for this machine, which does not free the name
        return name in await anyio.to_thread.run_sync(alias_names)


def aliases(config: Callable[[], Config], host_keys: HostKeys) -> Resolver:
    """What a name in ~/.ssh/config stands for, as one of the resolvers of `SessionRegistry.find_or_open`."""

    async def resolve(caller: Caller, name: str) -> Mapping[str, Any] | None:
        return {"host": name} if await Logins(caller, config(), host_keys).alias(name) else None

    return resolve


async def _load_keys(
    key_path: str | None, key_content: SecretStr | None, passphrase: SecretStr | None
) -> tuple[KeyCandidate, ...]:
    loaded: list[KeyCandidate] = []
    if key_path:
        loaded.append(await keys.with_certificate(key_path, await keys.from_path(key_path, passphrase)))
    if key_content:
        loaded.append(await keys.from_content(key_content, passphrase))
    return tuple(loaded)


def _from_agent(
    own: Identities, found: Settings, *, alone: bool
) -> tuple[frozenset[bytes] | None, tuple["asyncssh.SSHCertificate", ...]]:
    return own.public if found.identities_only or not alone else None, own.certificates
