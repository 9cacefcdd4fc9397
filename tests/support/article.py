"""The article's handler, as its author writes it: neither SDK nor types; mypy leaves it alone."""

from dscache_sdk.example import encode_example
from dscache_sdk.records import RecordWriter


class Article:
    """As the article has it: no SDK, options become attributes, `config_options` without self."""

    def __init__(self, config, base_data_path):
        self.base_data_path = base_data_path
        for name, value in config.items():
            setattr(self, name, value)

    def config_options():
        return {"size": "int", "names": "list of files to write"}

    def as_tfrecord(self):
        for name in self.names:
            with RecordWriter(name) as writer:
                writer.write(encode_example({"n": self.size, "raw": self.base_data_path}))
        return self.names

    def tf_records_mapper(self, files):
        raise NotImplementedError
