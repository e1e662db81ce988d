"""The operations of the internal API. Written by clients/generate.py."""

from typing import Any
from urllib.parse import quote

from .values import encode, given, path_of


class Operations:
    """A method for each operation; docs/api.md says more of each. Of an asynchronous client each
    answer is to be awaited."""

    def _call(self, method, path, *, query=None, body=None, has_values=False) -> Any:
        raise NotImplementedError

    def ban_tenant(self, tenant: str, banned: bool) -> Any:
        """Bans a tenant, which also ends what it has running, or lifts the ban."""
        return self._call("POST", f"/i/ban/{path_of(tenant)}", body={"banned": banned})

    def stop_broadcast(self) -> Any:
        """Has the broadcast that runs send nothing more; what is under way is still answered."""
        return self._call("DELETE", "/i/broadcast")

    def get_broadcast(self) -> Any:
        """How the broadcast stands that runs, or was the last since the masters started: the sum
        of all masters' parts, and each.
        """
        return self._call("GET", "/i/broadcast")

    def start_broadcast(
        self,
        name: str,
        data: Any = None,
        *,
        only_live=None,
        per_second=None,
    ) -> Any:
        """Begins to send an event to every tenant whose own state names it, one after the other;
        nobody waits for their answers. 409 (Conflict) while one is under way.
        """
        return self._call(
            "POST",
            "/i/broadcast",
            body={"name": name, **given(data=data, only_live=only_live, per_second=per_second)},
        )

    def dispatch(
        self,
        tenant: str,
        name: str,
        data: Any = None,
        *,
        author=None,
        nowait=None,
        deadline_ms=None,
    ) -> Any:
        """Dispatches an event to a tenant and answers with its result."""
        return self._call(
            "POST",
            f"/i/dispatch-event/{path_of(tenant)}",
            query={"nowait": nowait, "deadline_ms": deadline_ms},
            body={"name": name, **given(author=author, data=data)},
            has_values=True,
        )

    def drain(self) -> Any:
        """Has this master hand all its tenants over to the others of its cluster; it goes on
        forwarding.
        """
        return self._call("POST", "/i/drain")

    def drain_master(self, name: str) -> Any:
        """The same of any master of the cluster."""
        return self._call("POST", f"/i/drain/{quote(str(name))}")

    def drop_tenant(self, tenant: str, *, deadline_ms=None) -> Any:
        """Ends what a tenant has running and closes its VM; its data stays."""
        return self._call(
            "POST",
            f"/i/drop-tenant/{path_of(tenant)}",
            query={"deadline_ms": deadline_ms},
        )

    def shop_list(self, *, pattern=None, review_state=None, scope=None) -> Any:
        """The entries of the shop that match; all without a filter."""
        return self._call(
            "POST",
            "/i/global-kv",
            body={"op": "list", **given(pattern=pattern, review_state=review_state, scope=scope)},
        )

    def shop_get(self, scope: str, key: str, version: int) -> Any:
        """Reads or deletes an entry of the shop."""
        return self._call(
            "POST",
            "/i/global-kv",
            body={"op": "get", "scope": scope, "key": key, "version": version},
        )

    def shop_delete(self, scope: str, key: str, version: int) -> Any:
        """Reads or deletes an entry of the shop."""
        return self._call(
            "POST",
            "/i/global-kv",
            body={"op": "delete", "scope": scope, "key": key, "version": version},
        )

    def shop_create(
        self,
        scope: str,
        key: str,
        version: int,
        short: str,
        data: Any = None,
        *,
        long=None,
        owner_id=None,
        public_data=None,
        public_metadata=None,
    ) -> Any:
        """Puts an entry into the shop."""
        return self._call(
            "POST",
            "/i/global-kv",
            body={
                "op": "create",
                "scope": scope,
                "key": key,
                "version": version,
                "short": short,
                **given(data=data, long=long, owner_id=owner_id, public_data=public_data, public_metadata=public_metadata),
            },
        )

    def shop_review(self, scope: str, key: str, version: int, review_state: str) -> Any:
        """Changes the review state of an entry of the shop."""
        return self._call(
            "POST",
            "/i/global-kv",
            body={
                "op": "review",
                "scope": scope,
                "key": key,
                "version": version,
                "review_state": review_state,
            },
        )

    def shop_price(self, scope: str, key: str, version: int, price: int) -> Any:
        """Changes the price of an entry of the shop; null: it costs nothing."""
        return self._call(
            "POST",
            "/i/global-kv",
            body={"op": "price", "scope": scope, "key": key, "version": version, "price": price},
        )

    def guilds_exist(self, body: list) -> Any:
        """For each guild 1 if it has a state, a record or a live VM, else 0. What a worker does
        not say of its VMs within a second is not known. Live VMs of other masters are not asked
        for.
        """
        return self._call("POST", "/i/guilds-exist", body=body)

    def kill_workers(self) -> Any:
        """Kills all workers; they stay stopped until they are restarted."""
        return self._call("POST", "/i/kill-worker")

    def kill_worker(self, id: int) -> Any:
        """Kills a worker, or closes the link of one that somebody else started; it stays stopped
        until it is restarted.
        """
        return self._call("POST", f"/i/kill-worker/{quote(str(id))}")

    def kv_get(self, tenant: str, key: str, scopes: list) -> Any:
        """Reads a record; null if there is none."""
        return self._call(
            "POST",
            f"/i/kv/{path_of(tenant)}",
            body={"op": "get", "key": key, "scopes": scopes},
            has_values=True,
        )

    def kv_set(self, tenant: str, key: str, value: Any, scopes: list) -> Any:
        """Writes a record."""
        return self._call(
            "POST",
            f"/i/kv/{path_of(tenant)}",
            body={"op": "set", "key": key, "value": encode(value), "scopes": scopes},
        )

    def kv_delete(self, tenant: str, key: str, scopes: list) -> Any:
        """Deletes a record, if there is one."""
        return self._call(
            "POST",
            f"/i/kv/{path_of(tenant)}",
            body={"op": "delete", "key": key, "scopes": scopes},
        )

    def kv_find(self, tenant: str, pattern: str, *, scopes=None) -> Any:
        """The records whose keys are like a pattern."""
        return self._call(
            "POST",
            f"/i/kv/{path_of(tenant)}",
            body={"op": "find", "pattern": pattern, **given(scopes=scopes)},
            has_values=True,
        )

    def kv_list_scopes(self, tenant: str) -> Any:
        """The scopes in which the tenant has records."""
        return self._call("POST", f"/i/kv/{path_of(tenant)}", body={"op": "list_scopes"})

    def get_log_level(self) -> Any:
        """How much the master logs, and its workers with it."""
        return self._call("GET", "/i/log-level")

    def set_log_level(self, level: str) -> Any:
        """Changes how much the master and every worker log, until the master stops."""
        return self._call("PUT", "/i/log-level", body={"level": level})

    def list_masters(self) -> Any:
        """The masters over the same database, by name, those that ended or died within a day
        included; none where the store knows no others.
        """
        return self._call("GET", "/i/masters")

    def send_message(self, tenant: str, topic: str, data: Any = None, *, deadline_ms=None) -> Any:
        """Sends a tenant a message as staff: the event TenantMessage. No permission is needed; 202
        once it is in the tenant's queue.
        """
        return self._call(
            "POST",
            f"/i/message/{path_of(tenant)}",
            query={"deadline_ms": deadline_ms},
            body={"topic": topic, **given(data=data)},
        )

    def purchase(self, tenant: str, scope: str, key: str, version: int) -> Any:
        """Notes that a tenant purchased an entry: it may read it from now on."""
        return self._call(
            "POST",
            f"/i/purchase/{path_of(tenant)}",
            body={"scope": scope, "key": key, "version": version},
        )

    def list_quarantine(self) -> Any:
        """The tenants whose events were in flight when workers died, again and again."""
        return self._call("GET", "/i/quarantine")

    def lift_quarantine(self, tenant: str) -> Any:
        """Lets a quarantined tenant run again."""
        return self._call("POST", f"/i/quarantine/lift/{path_of(tenant)}")

    def restart_worker(self, id: int) -> Any:
        """Begins to start a worker anew: it answers first what it has in flight. One that failed
        or was stopped gets another chance.
        """
        return self._call("POST", f"/i/restart-worker/{quote(str(id))}")

    def get_rolling_restart(self) -> Any:
        """How the last rolling restart stands."""
        return self._call("GET", "/i/rolling-restart")

    def start_rolling_restart(self) -> Any:
        """Begins to start all workers anew, one at a time; stops at the first that does not come
        back.
        """
        return self._call("POST", "/i/rolling-restart")

    def get_route(self, tenant: str) -> Any:
        """Which master of the cluster has a tenant. A caller may go there without a way round,
        until an answer names another one.
        """
        return self._call("GET", f"/i/route/{path_of(tenant)}")

    def run_script(
        self,
        tenant: str,
        name: str,
        code: str,
        data: Any = None,
        *,
        author=None,
        deadline_ms=None,
    ) -> Any:
        """Runs Luau in a tenant's VM and answers with its result."""
        return self._call(
            "POST",
            f"/i/run-script/{path_of(tenant)}",
            query={"deadline_ms": deadline_ms},
            body={"name": name, "code": code, **given(author=author, data=data)},
            has_values=True,
        )

    def get_status(self, *, history=None) -> Any:
        """Everything that the status page shows, at one moment. Counts are since the master
        started.
        """
        return self._call("GET", "/i/status", query={"history": history})

    def get_tenant_state(self, tenant: str) -> Any:
        """A tenant's state."""
        return self._call("GET", f"/i/tenant-state/{path_of(tenant)}")

    def put_tenant_state(self, tenant: str, events: list, data: Any = None) -> Any:
        """Replaces a tenant's state; its worker knows at once."""
        return self._call(
            "PUT",
            f"/i/tenant-state/{path_of(tenant)}",
            body={"events": events, **given(data=data)},
        )

    def get_tenant(self, tenant: str) -> Any:
        """Everything about a tenant: state, standing, usage."""
        return self._call("GET", f"/i/tenant/{path_of(tenant)}")

    def count_threads(self) -> Any:
        """The number of workers."""
        return self._call("GET", "/i/threads-count")

    def list_timers(self, tenant: str) -> Any:
        """A tenant's timers, in the order in which they are due."""
        return self._call("GET", f"/i/timers/{path_of(tenant)}")

    def undrain(self) -> Any:
        """Lets this master take its share of tenants again."""
        return self._call("POST", "/i/undrain")

    def undrain_master(self, name: str) -> Any:
        """The same of any master of the cluster."""
        return self._call("POST", f"/i/undrain/{quote(str(name))}")

    def list_workers(self) -> Any:
        """The workers, in order of their ids."""
        return self._call("GET", "/i/workers")

    def livez(self) -> Any:
        """The process answers."""
        return self._call("GET", "/livez")

    def readyz(self, *, verbose=None) -> Any:
        """Every worker that is not failed or stopped is ready, and there is one; in a cluster the
        master's lease lasts, too.
        """
        return self._call("GET", "/readyz", query={"verbose": verbose})
