"""A plain handler that returns record files which lie elsewhere than in its working directory."""

from __future__ import annotations

from support.packages import HandlerPackage

GREEDY = HandlerPackage(
    "greedy",
    handlers={"greedy": "Greedy"},
    dependencies=(),
    code='''
    """Returns ready-made files, in the way that its option says."""

    import os
    from pathlib import Path


    class Greedy:
        def __init__(self, config, base_data_path):
            self.how = config["how"]
            self.raw = Path(base_data_path)

        @staticmethod
        def config_options():
            return {"how": {"type": str}}

        def as_tfrecord(self):
            return [str(self._place(path)) for path in sorted(self.raw.glob("*.tfrecord"))]

        def _place(self, path):
            if self.how == "absolute":
                return path
            if self.how == "relative":
                return os.path.relpath(path)
            if self.how == "linked folder":
                link = Path("linked")
                if not link.exists():
                    link.symlink_to(self.raw)
                return link / path.name
            if self.how == "hard link":
                Path(path.name).hardlink_to(path)
                return path.name
            if self.how == "elsewhere":
                return self.raw.parent / "elsewhere" / path.name
            raise ValueError(self.how)

        def tf_records_mapper(self, files):
            raise NotImplementedError
    ''',
)
