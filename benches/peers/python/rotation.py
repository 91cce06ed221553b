"""psycopg's pool, whose connections each get a new token of boto3."""

import json
import os
import sys
import threading
import time

import boto3
from psycopg import Error
from psycopg_pool import ConnectionPool, PoolTimeout

SECONDS, THREADS, SIZE = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
host, port, user = (os.environ[name] for name in ("PGHOST", "PGPORT", "PGUSER"))
rds = boto3.client("rds")


def arguments():
    token = rds.generate_db_auth_token(DBHostname=host, Port=int(port), DBUsername=user)
    return {"password": token, "sslmode": "verify-full", "autocommit": True}


lock = threading.Lock()
checkouts = failed = failed_queries = 0
slowest = [0.0] * (int(SECONDS) + 1)
# As the other pools do, this one tries a connection at checkout.
pool = ConnectionPool(
    kwargs=arguments, max_size=SIZE, check=ConnectionPool.check_connection, open=True
)
start = time.monotonic()


def use():
    global checkouts, failed, failed_queries
    while (asked := time.monotonic()) - start < SECONDS:
        try:
            connection = pool.getconn()
        except (PoolTimeout, Error):
            connection = None
        took = time.monotonic() - asked
        second = min(int(asked - start), len(slowest) - 1)
        with lock:
            checkouts += 1
            failed += connection is None
            slowest[second] = max(slowest[second], took * 1e3)
        if connection:
            try:
                connection.execute("SELECT 1")
            except Error:
                with lock:
                    failed_queries += 1
            pool.putconn(connection)
        time.sleep(0.01)


threads = [threading.Thread(target=use) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
pool.close(timeout=1)
print(
    json.dumps(
        {
            "checkouts": checkouts,
            "failed": failed,
            "failed queries": failed_queries,
            "slowest": slowest,
        }
    )
)
