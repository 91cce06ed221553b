"""Nanoseconds that botocore takes for a token."""

import json
import sys
import time

import boto3

CALLS = int(sys.argv[1])
rds = boto3.client("rds")


def token():
    return rds.generate_db_auth_token(
        DBHostname="mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com", Port=5432, DBUsername="app"
    )


token()
start = time.perf_counter()
for _ in range(CALLS):
    token()
spent = time.perf_counter() - start
print(json.dumps({"botocore": spent / CALLS * 1e9}))
