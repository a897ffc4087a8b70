import dataclasses
import json

from domainformer.reports.evidence import columns_of, notes_of


def as_json(inferred, *, flat: bool):
    """The evidence as a JSON file keeps it: facts nested, or flat beside the decision."""
    rows = []
    for row in inferred.evidence:
        plain = dataclasses.asdict(row)
        rows.append({**plain.pop("profile"), **plain} if flat else plain)
    value = {"evidence": rows, "notes": list(inferred.notes)}
    return json.loads(json.dumps(value, default=str))


def test_a_file_tells_what_the_inference_told(inferred):
    told = columns_of(inferred, inferred.schema)
    assert [row.column for row in told] == [row.column for row in inferred.evidence]
    for flat in (False, True):
        assert columns_of(as_json(inferred, flat=flat), inferred.schema) == told
        assert notes_of(as_json(inferred, flat=flat)) == notes_of(inferred)


def test_the_file_of_the_main_job_is_read(inferred):
    written = json.loads(json.dumps(inferred.to_dict(), default=str))
    assert columns_of(written, inferred.schema) == columns_of(inferred, inferred.schema)


def test_no_entity_is_named(inferred):
    entity = next(row for row in columns_of(inferred, inferred.schema) if row.role == "entity")
    assert "most often" not in entity.found


def test_without_evidence_the_schema_speaks(inferred):
    told = columns_of(None, inferred.schema)
    assert {row.column for row in told} == {spec.source for spec in inferred.schema.fields}
    assert all(row.becomes for row in told)
    assert notes_of(None) == []


def test_an_edited_schema_decides_what_columns_became(inferred):
    dropped = next(row.column for row in inferred.evidence if row.fields)
    kept = [spec for spec in inferred.schema.fields if spec.source != dropped]
    edited = type(inferred.schema)("edited", kept)
    row = next(row for row in columns_of(inferred, edited) if row.column == dropped)
    assert row.becomes == ()
