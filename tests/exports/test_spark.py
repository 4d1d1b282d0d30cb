"""Spark on a cluster answers the five queries as DuckDB does, from the same files."""

from __future__ import annotations

import os
from pathlib import Path

from exports.big_capture import write
from exports.queries import QUERIES
from pyspark.sql import SparkSession

from unixsock_bpf.cli.main import main
from unixsock_bpf.dataset.query import Dataset


def test_spark_answers_as_duckdb_does(tmp_path: Path) -> None:
    folder = str(tmp_path / "dataset")
    for number, host in enumerate(("db1", "db2", "web")):
        capture = write(tmp_path / "a.pcapng", 20_000 + number, step_ns=400_000_000)
        arguments = ["export", str(capture), "--format", "parquet", "-w", folder, "--host", host]
        assert main([*arguments, "--rotate-size", "0.5"]) == 0
    odd = Path(__file__).parents[1] / "dissector/captures/docker.pcapng"
    assert main(["export", str(odd), "--format", "parquet", "-w", folder, "--host", "web"]) == 0
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    spark = (
        SparkSession.builder.master("local-cluster[3,1,512]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.memory", "512m")
        .config("spark.executor.memory", "512m")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "3")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    try:
        spark.read.parquet(folder).createOrReplaceTempView("records")
        for name, sql in QUERIES.items():
            columns, pieces = Dataset(folder).rows(sql)
            expected = [row for rows in pieces for row in rows]
            found = [tuple(row) for row in spark.sql(sql).collect()]
            assert found == expected, name
            assert expected, name
            assert list(spark.sql(sql).columns) == columns
    finally:
        spark.stop()
