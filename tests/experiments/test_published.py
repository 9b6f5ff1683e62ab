import json

import pytest
from made_runs import make_run

from kgat import cli, datasets
from kgat.experiments import published as module
from kgat.experiments.config import Config
from kgat.experiments.published import agreement, published

pytestmark = pytest.mark.quick


def test_every_result_is_of_a_data_set_and_its_settings_are_possible():
    results = module._tables().values()
    assert len(results) >= 12
    assert {result.dataset for result in results} <= set(datasets.names())
    for result in results:
        config = Config.of(result.dataset, "gat", overrides=result.settings)
        assert {name: getattr(config, name) for name in result.settings} == {
            name: None if value == "none" else value for name, value in result.settings.items()
        }
        assert result.std > 0
        assert result.source


def test_settings_are_those_of_the_stack_and_of_the_set():
    chameleon = published("Chameleon_Filtered")
    assert (chameleon.settings["jk"], chameleon.settings["hidden_channels"]) == ("last", 256)
    assert published("Cora").settings == {}  # ours is that of the paper
    with pytest.raises(ValueError, match=r"a data set with a published protocol .*'digits'.*Texas"):
        published("digits")


def test_agreement_counts_standard_deviations():
    def runs(dataset, *scores, **changes):
        return [
            {
                "kind": "run",
                "model": "gat",
                "dataset": dataset,
                "metric": "accuracy",
                "test": s,
                "best_epoch": 7,
            }
            | changes
            for s in scores
        ]

    records = runs("Cora", 0.825, 0.83) + runs("PubMed", 0.8, 0.8) + runs("Texas", 0.3)
    records += [*runs("Cora", 0.1, model="rbf"), {"kind": "cost"}]
    table = agreement(records).splitlines()[2:]
    assert table[0] == "| Cora | same | theirs | 83.00 ± 0.70 | 82.75 ± 0.35 | 2 | 7 | yes |"
    assert table[1].endswith("| 3.3 std above |")
    assert table[2].endswith("| 30.00 ± nan | 1 | 7 | 3.3 std below |")
    assert table[4].startswith("- Cora, PubMed: Veličković et al.")


def test_the_table_is_printed_and_written_into_a_page(tmp_path, capsys):
    record = {**make_run("gat", 0, 0.83, dataset="Cora"), "best_epoch": 7}
    (tmp_path / "results.jsonl").write_text(json.dumps(record) + "\n")
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- published:begin -->\n<!-- published:end -->\nafter\n")
    assert cli.main(["table", str(tmp_path), "--published"]) == 0
    printed = capsys.readouterr().out
    assert "| Cora | same | theirs | 83.00 ± 0.70 | 83.00 ± nan | 1 | 7 | yes |" in printed
    assert cli.main(["table", str(tmp_path), "--published", "--readme", str(page)]) == 0
    assert printed.strip() in page.read_text()
    assert cli.main(["table", str(tmp_path / "none"), "--published"]) == 2


def test_the_command_takes_the_protocol_and_what_is_set_goes_before_it(tmp_path, data_root, capsys):
    if not (data_root / "texas").is_dir():
        pytest.skip("needs the raw files of Texas")
    arguments = ["compare", "--dataset", "Texas", "--root", str(data_root), "--models", "gat", "--seeds", "1"]
    arguments += ["--protocol", "published", "--set", "max_epochs=2", "--set", "lr=0.5", "--rounds", "0"]
    assert cli.main([*arguments, "--out", str(tmp_path), "--jobs", "1"]) == 0
    (record,) = (r for r in map(json.loads, (tmp_path / "results.jsonl").open()) if r["kind"] == "run")
    config = record["config"]
    assert (config["norm"], config["residual"], config["lr"], config["max_epochs"]) == (None, False, 0.5, 2)
    assert cli.main(["compare", "--dataset", "Texas", "--protocol", "publisht"]) == 2
    assert "did you mean 'published'?" in capsys.readouterr().err
