import platform
from pathlib import Path

from tests.bench.processor import processor


def test_the_processor_has_the_kernels_name_for_it(monkeypatch):
    texts = {
        "named": "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Some CPU @ 2 GHz\n",
        "bare": "cpu: 0\n",
    }
    for key, expected in (("named", "Some CPU @ 2 GHz"), ("bare", platform.processor() or platform.machine())):
        monkeypatch.setattr(Path, "read_text", lambda self, encoding, key=key: texts[key])
        assert processor() == expected


def test_without_such_a_file_the_architecture_stands(monkeypatch):
    def absent(self, encoding):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", absent)
    assert processor() == (platform.processor() or platform.machine())
