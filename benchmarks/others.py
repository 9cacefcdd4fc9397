"""Other programs that transfer objects, with their default settings: boto3, mc and rclone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

from dscache.config import Config

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.gotools import ensure_program


class Others:
    """The other programs, configured for one store by environment variables alone.

    Their own files go to the folder `scratch`.
    """

    def __init__(self, config: Config, scratch: Path) -> None:
        self.config = config
        login = f"{config.access_key}:{config.secret_key}"
        self._environ = {
            "PATH": os.defpath,
            "HOME": str(scratch),
            "MC_CONFIG_DIR": str(scratch / "mc"),
            "MC_HOST_store": f"http://{login}@{urlsplit(config.endpoint).netloc}",
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CACHE_DIR": str(scratch / "rclone"),
            "RCLONE_CONFIG_STORE_TYPE": "s3",
            "RCLONE_CONFIG_STORE_PROVIDER": "Minio",
            "RCLONE_CONFIG_STORE_ENDPOINT": config.endpoint,
            "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": config.access_key,
            "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": config.secret_key,
        }

    def boto3(self) -> Any:
        """Return a new client."""
        return boto3.client(
            "s3",
            endpoint_url=self.config.endpoint,
            region_name=self.config.region,
            aws_access_key_id=self.config.access_key,
            aws_secret_access_key=self.config.secret_key,
        )

    def at_mc(self, name: str) -> str:
        """Return the name of an object for mc."""
        return f"store/{self.config.bucket}/{name}"

    def mc(self, *arguments: str) -> None:
        """Run mc."""
        self._run("mc", "--quiet", *arguments)

    def at_rclone(self, name: str) -> str:
        """Return the name of an object for rclone."""
        return f"store:{self.config.bucket}/{name}"

    def rclone(self, *arguments: str) -> None:
        """Run rclone."""
        self._run("rclone", "--quiet", *arguments)

    def _run(self, name: str, *arguments: str) -> None:
        program = ensure_program(name, os.environ, lambda line: print(line, file=sys.stderr))
        subprocess.run(
            [program, *arguments], env=self._environ, stdout=subprocess.DEVNULL, check=True
        )
