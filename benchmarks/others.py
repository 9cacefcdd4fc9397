"""What else moves objects: boto3, mc and rclone, each with the settings it comes with."""

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
    """They know one store, from environment variables alone; what they write of their own goes to
    the folder `scratch`."""

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
        """A new client."""
        return boto3.client(
            "s3",
            endpoint_url=self.config.endpoint,
            region_name=self.config.region,
            aws_access_key_id=self.config.access_key,
            aws_secret_access_key=self.config.secret_key,
        )

    def at_mc(self, name: str) -> str:
        """An object as mc calls it."""
        return f"store/{self.config.bucket}/{name}"

    def mc(self, *words: str) -> None:
        """Run `mc WORDS`."""
        self._run("mc", "--quiet", *words)

    def at_rclone(self, name: str) -> str:
        """An object as rclone calls it."""
        return f"store:{self.config.bucket}/{name}"

    def rclone(self, *words: str) -> None:
        """Run `rclone WORDS`."""
        self._run("rclone", "--quiet", *words)

    def _run(self, name: str, *words: str) -> None:
        program = ensure_program(name, os.environ, lambda line: print(line, file=sys.stderr))
        subprocess.run([program, *words], env=self._environ, stdout=subprocess.DEVNULL, check=True)
