"""The published experiment in Python, as most people would write it: redis-py's lock, psycopg2, one table.

Mutext's laboratory starts this as it starts its own agents, and judges it by the same code:

    agent.py check     says which versions it runs with, or what is missing
    agent.py keeper    makes a trial's table, and in the end hands over what it holds and drops it
    agent.py agent     one agent of a trial

Keeper and agent read their task as one line of JSON from standard input, answer `ready`, wait for a line, work, and
end with one line of JSON. The task holds passwords: it is never shown, and never on the command line.
"""

import json
import re
import sys
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

HERE = Path(__file__).resolve().parent

try:
    import psycopg2
    import psycopg2.extensions
    import redis
    import redis.exceptions
    import redis.lock
except ImportError as error:
    sys.exit(f"{error.name} is not installed for {sys.executable}; run {HERE / 'setup'}")

# How long one update may go on being tried, as with Mutext's agents.
PATIENCE_S = 30.0


def now_ns():
    """The machine's monotonic clock, which all agents share, Mutext's too."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def connect(url):
    """A connection with psycopg2's defaults. Options that libpq does not know are Mutext's, and left out."""
    parts = urlsplit(url)
    known = [(key, value) for key, value in parse_qsl(parts.query) if key in ("sslmode", "sslrootcert", "host", "port")]
    return psycopg2.connect(urlunsplit(parts._replace(scheme="postgresql", query=urlencode(known))))


def connect_redis(url):
    """A client with redis-py's defaults."""
    parts = urlsplit(url)
    scheme = "unix" if parts.scheme == "redis+unix" else parts.scheme
    known = [(key, value) for key, value in parse_qsl(parts.query) if key == "db"]
    return redis.Redis.from_url(urlunsplit(parts._replace(scheme=scheme, query=urlencode(known), fragment="")))


def table(task):
    """The trial's table: its context's name, made fit for SQL."""
    return "python_" + re.sub(r"[^a-z0-9]", "_", task["context"])


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Agent:
    """One agent: reads, thinks, adds its update's id to the list, writes back."""

    def __init__(self, task):
        workload = task["workload"]
        self.task, self.table = task, table(task)
        self.locking = task["treatment"] == "python locking"
        self.think_s = workload["think_ms"] / 1000
        self.ttl_s, self.wait_s = workload["ttl_ms"] / 1000, workload["wait_ms"] / 1000
        self.connection = connect(task["store"])
        self.redis = connect_redis(task["locks"])
        self.redis.ping()
        self.log = self.new_log()

    @staticmethod
    def new_log():
        return {"updates": [], "conflicts": 0, "timeouts": 0, "lost_leases": 0, "errors": []}

    def warm_up(self):
        """One update on a document of its own, which nobody counts: as Mutext's agents do."""
        think_s, self.think_s = self.think_s, 0
        self.update("warm-up", self.task["warm_up"])
        errors, self.log, self.think_s = self.log["errors"], self.new_log(), think_s
        if errors:
            sys.exit(f"no update is possible: {errors[0]}")

    def work(self):
        for number, step in enumerate(self.task["schedule"]):
            time.sleep(step["pause_ns"] / 1e9)
            try:
                self.update(f"{self.task['agent']}-{number}", step["path"])
            except (psycopg2.Error, redis.exceptions.RedisError) as error:
                self.connection.rollback()
                self.log["errors"].append(f"{type(error).__name__}: {error}")
        return self.log

    def update(self, update_id, path):
        invoked = now_ns()
        record = {"id": update_id, "path": path, "invoked": invoked, "token": None, "revision": None}
        record |= {"asked": None, "granted": None, "acquire_ms": None}
        if not self.locking:
            record |= self.change(update_id, path)
        else:
            # Its defaults: one SET NX, and then a sleep of 100 ms after each try that fails.
            lock = self.redis.lock(f"{self.table}:{path}", timeout=self.ttl_s, blocking_timeout=self.wait_s)
            record["asked"] = now_ns()
            while not self.acquire(lock):
                self.log["timeouts"] += 1
                if now_ns() - invoked > PATIENCE_S * 1e9:
                    self.log["errors"].append(f"no lock on {path} within {PATIENCE_S:.0f} s")
                    return
            record["granted"] = now_ns()
            record["acquire_ms"] = (record["granted"] - record["asked"]) / 1e6
            try:
                record |= self.change(update_id, path)
            finally:
                try:
                    lock.release()
                except redis.exceptions.LockError:
                    # It had expired. The write is done all the same: nothing in this scheme could refuse it.
                    self.log["lost_leases"] += 1
        record["returned"] = now_ns()
        self.log["updates"].append(record)

    def acquire(self, lock):
        """One wait for the lock. redis-py gives up once its next try would come too late; the rest is waited here, so
        that trying again does not become trying all the time."""
        asked = now_ns()
        if lock.acquire():
            return True
        time.sleep(max(0.0, self.wait_s - (now_ns() - asked) / 1e9))
        return False

    def change(self, update_id, path):
        """psycopg2's defaults: the read begins a transaction, the commit after the write ends it."""
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(f"SELECT content FROM {self.table} WHERE path = %s", (path,))
            read = cursor.fetchone()[0]
            entered = now_ns()
            if self.think_s:
                time.sleep(self.think_s)
            written = json.dumps(json.loads(read) + [update_id])
            left = now_ns()
            cursor.execute(f"UPDATE {self.table} SET content = %s WHERE path = %s", (written, path))
        return {"entered": entered, "left": left, "read": read, "written": written}


def agent(task):
    living = Agent(task)
    living.warm_up()
    say("ready")
    sys.stdin.readline()
    say(json.dumps(living.work()))


def keeper(task):
    """Makes the table, waits for the trial's end, hands over what the table holds, and drops it."""
    name, connection = table(task), connect(task["store"])
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {name} (path text PRIMARY KEY, content text NOT NULL)")
            rows = [(path,) for path in task["documents"]]
            cursor.executemany(f"INSERT INTO {name} VALUES (%s, '[]')", rows)
        say("ready")
        sys.stdin.readline()
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT path, content FROM {name}")
            say(json.dumps(dict(cursor.fetchall())))
    finally:
        connection.rollback()
        with connection, connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {name}")


def check():
    """Says what it runs with, and fails where that is not what requirements.txt pins."""
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (HERE / "requirements.txt").read_text(), re.MULTILINE))
    found = {"redis": redis.__version__, "psycopg2-binary": psycopg2.__version__.split()[0]}
    for name, version in found.items():
        if pinned.get(name) != version:
            sys.exit(f"{name} {version} is installed, requirements.txt pins {pinned.get(name)}; run {HERE / 'setup'}")
    libpq = psycopg2.extensions.libpq_version()
    say(f"Python {sys.version.split()[0]}")
    say(f"redis-py {redis.__version__}, redis.lock.Lock with its defaults (a try every 100 ms)")
    say(f"psycopg2 {found['psycopg2-binary']} (libpq {libpq // 10000}.{libpq % 10000}), default isolation")


def main():
    roles = {"agent": agent, "keeper": keeper}
    role = sys.argv[1] if len(sys.argv) == 2 else ""
    if role == "check":
        check()
    elif role in roles:
        roles[role](json.loads(sys.stdin.readline()))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
