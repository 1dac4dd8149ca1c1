"""Compressed files: endings in any case, one file in a .zip, damage; how much --check reads."""

import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.config.sections.data import DataSection
from trainer.data.reading.formats import compression
from trainer.data.reading.formats.records import Records
from trainer.data.reading.sources import check_source, read_rows
from trainer.errors import DataError

CSV = "text,label\nÄrger,x\nb,y\n"
JSONL = '{"text": "Ärger", "label": "x"}\n{"text": "b", "label": "y"}\n'
ROWS = [("Ärger", "x"), ("b", "y")]


def zstd(content):
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as file:
        file.write(content)
    return out.getvalue().to_pybytes()


def zipped(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


PACK = {
    "gz": gzip.compress,
    "GZ": gzip.compress,
    "xz": lzma.compress,
    "Zst": zstd,
    "zip": lambda content: zipped(**{"any name": content}),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path / "rows")
    return tmp_path


def both_readings(name, **options):
    """The rows as training and as prediction read them."""
    section = DataSection(source=str(name), **options)
    table = read_rows(section, Path("../cache")).table
    trained = list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert [
        (row["text"], row["label"]) for row in Records(Path(name), section, ["text"])
    ] == trained
    return trained


def refused(name, **options):
    """What refuses the file, the same in training and prediction."""
    section = DataSection(source=str(name), **options)
    with pytest.raises(DataError) as trained:
        read_rows(section, Path("../cache"))
    with pytest.raises(DataError) as predicted:
        list(Records(Path(name), section, ["text"]))
    assert str(predicted.value) == str(trained.value)
    return str(trained.value)


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("A.csv", CSV),
        ("b.jsonl", JSONL),
        ("c.json", JSONL),
        ("d.json", f"[{JSONL.strip().replace(chr(10), ',')}]"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_packed_text_file_reads_as_it_does_unpacked(name, content, packing, encoding):
    path = Path(f"{name}.{packing}")
    path.write_bytes(PACK[packing](content.encode(encoding)))
    assert both_readings(path, encoding=encoding) == ROWS


def test_zip_is_named_by_the_one_file_in_it():
    Path("data.zip").write_bytes(
        zipped(**{"__MACOSX/._rows.csv": b"x", "folder/": b"", "folder/rows.CSV": CSV})
    )
    assert both_readings("data.zip") == ROWS


def test_zip_of_several_files_or_none_is_refused_with_their_names():
    Path("data.zip").write_bytes(zipped(**{"b.csv": CSV, "a.csv": CSV}))
    assert refused("data.zip") == (
        "data.zip: holds 2 files: a.csv, b.csv; needed: one. Decompress it, and give the "
        "files that you want."
    )
    Path("rows.csv.zip").write_bytes(zipped())
    assert refused("rows.csv.zip") == (
        "rows.csv.zip: holds no file; needed: one. Decompress it, and give the files that you want."
    )


@pytest.mark.parametrize("packing", ["gz", "xz", "zst", "zip"])
def test_damaged_packed_file_is_named(packing):
    path = Path(f"rows.csv.{packing}")
    content = PACK.get(packing, zstd)(
        b"text,label\n"
        + b"".join(b"row %d,%d\n" % (n * 7919 % 10_007, n % 2) for n in range(20_000))
    )
    path.write_bytes(content[: len(content) // 2])
    assert refused(path).startswith(
        "rows.csv.zip: is not a .zip file"
        if packing == "zip"
        else f"{path}: cannot be read to its end: "
    )
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(200) + content[middle + 200 :])
    section = DataSection(source=str(path), on_bad_rows="skip")
    with pytest.raises(DataError, match=rf"^{path}: (cannot be read to its end|byte \d+ )"):
        read_rows(section, Path("../cache"))
    with pytest.raises(DataError, match=rf"^{path}: (cannot be read to its end|byte \d+ )"):
        list(Records(path, section, ["text"]))
    path.write_bytes(b"text,label\na,x\n")
    assert refused(path).startswith(f"{path}: ")


@pytest.mark.parametrize("packing", ["gz", "xz", "zst", "zip"])
def test_wrong_encoding_of_a_packed_file_is_worded(packing):
    path = Path(f"rows.csv.{packing}")
    path.write_bytes(
        PACK.get(packing, zstd)("text,label\nder Ärger über die Größe,x\n".encode("cp1252"))
    )
    assert refused(path) == (
        f"{path}: byte 15 (line 2) is not utf-8; it looks like cp1252. Set "
        f"data.encoding, or save the file as UTF-8."
    )


def test_packed_table_is_refused():
    pq.write_table(pa.table({"text": ["a"], "label": ["x"]}), "a.parquet")
    Path("a.parquet.gz").write_bytes(gzip.compress(Path("a.parquet").read_bytes()))
    assert refused("a.parquet.gz") == (
        "a.parquet.gz: of compressed files only text formats can be read: CSV, TSV, "
        "JSONL, JSON. Decompress it."
    )


class Counted(io.FileIO):
    """A file that counts the bytes read of it."""

    num_bytes = 0

    def readinto(self, buffer):
        size = super().readinto(buffer)
        Counted.num_bytes += size
        return size

    def readall(self):
        content = super().readall()
        Counted.num_bytes += len(content)
        return content


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "list.json", "a.csv.gz"])
def test_check_reads_a_bounded_part_of_a_file_of_any_size(name, monkeypatch):
    row = {".csv": "some words,x\n", ".tsv": "some words\tx\n"}.get(
        Path(name.removesuffix(".gz")).suffix, '{"text": "some words", "label": "x"}\n'
    )
    head = {".csv": "text,label\n", ".tsv": "text\tlabel\n"}.get(
        Path(name.removesuffix(".gz")).suffix, ""
    )
    content = head + row * (40_000_000 // len(row))
    if name == "list.json":
        content = "[" + content.replace("\n", ",") + row + "]"
    Path(name).write_bytes(
        gzip.compress(content.encode(), 0) if name.endswith(".gz") else content.encode()
    )
    monkeypatch.setattr(
        compression.Path, "open", lambda path, mode: io.BufferedReader(Counted(path, "r"))
    )
    monkeypatch.setattr(Counted, "num_bytes", 0)
    check_source(DataSection(source=name))
    assert 0 < Counted.num_bytes < 6_000_000


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json"])
@pytest.mark.parametrize(
    ("content", "name", "form"),
    [
        (b"PAR1" + bytes(50), "a Parquet file", ".parquet"),
        (b"ARROW1\0\0" + bytes(50), "an Arrow file", ".arrow"),
        (PACK["gz"](CSV.encode()), "a gzip file", "{ending}.gz"),
        (PACK["xz"](CSV.encode()), "an xz file", "{ending}.xz"),
        (zstd(CSV.encode()), "a zstd file", "{ending}.zst"),
        (zipped(**{"[Content_Types].xml": b""}), "an Excel file", ".xlsx"),
        (zipped(rows=CSV.encode()), "a zip file", "{ending}.zip"),
    ],
    ids=["parquet", "arrow", "gzip", "xz", "zstd", "xlsx", "zip"],  # packed bytes hold the time
)
def test_file_of_another_format_than_its_ending_says_is_named(ending, content, name, form):
    path = Path(f"a{ending}")
    path.write_bytes(content)
    words = f"{path}: is {name} by its first bytes, not text. Rename it, so that its name ends in "
    assert refused(path) == words + form.format(ending=ending) + "."


@pytest.mark.parametrize("content", [JSONL, f"[{JSONL.splitlines()[0]}]"])
def test_json_under_the_name_of_csv_is_named(content):
    Path("a.csv").write_text(content, encoding="utf-8")
    assert refused("a.csv").startswith("a.csv: holds JSON, not CSV. Rename the file")
