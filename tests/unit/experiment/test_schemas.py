"""The JSON Schemas that editors use are those of the records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr_distill.cli import schema
from asr_distill.experiment import read_yaml

ROOT = Path(__file__).parents[3]
SCHEMAS = ROOT / "workflow/schemas"
FILES = {
    "config": [ROOT / "config/config.yaml"],
    "scale": sorted((ROOT / "config/scales").glob("*.yaml")),
    "study": sorted((ROOT / "config/studies").glob("*.yaml")),
}


def test_the_stored_schemas_are_up_to_date(tmp_path):
    schema(tmp_path)
    generated, stored = ({path.name: path.read_text() for path in f.iterdir()} for f in (tmp_path, SCHEMAS))
    assert generated.keys() == {f"{kind}.schema.json" for kind in FILES}
    assert stored == generated, "run: asr-distill schema workflow/schemas"


def validator(kind):
    jsonschema = pytest.importorskip("jsonschema")
    content = json.loads((SCHEMAS / f"{kind}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, paths in FILES.items() for path in paths], ids=str)
def test_config_files_fit_their_schema(kind, path):
    assert [error.message for error in validator(kind).iter_errors(read_yaml(path))] == []


@pytest.mark.parametrize("kind", FILES)
def test_schemas_refuse_unknown_keys(kind):
    values = read_yaml(FILES[kind][0])
    assert not validator(kind).is_valid(values | {"unknown": 1})


def test_every_field_of_a_scale_is_described_to_the_editor():
    content = json.loads((SCHEMAS / "scale.schema.json").read_text())
    assert "description" in content["$defs"]["EncoderSize"]["properties"]["stack"]
