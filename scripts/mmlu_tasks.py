"""Write the task files of MMLU's three implementations: a group each, and for every subject the four lines it takes.

lm-eval finds tasks by their YAML files, one name a file; what they say is in the templates beside them. `--check` tells
whether the files are what this script would write.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "pipeline" / "tasks" / "mmlu_ways"
METRICS = {
    "original": ("acc", "none_of_letters"),
    "helm": ("exact_match", "none_of_letters"),
    "harness_2023": ("acc", "acc_norm"),
}
SUBJECTS = """
abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting
professional_law professional_medicine professional_psychology public_relations security_studies sociology
us_foreign_policy virology world_religions
""".split()


def files() -> dict[Path, str]:
    """Path -> text of every generated file."""
    found = {}
    for way, metrics in METRICS.items():
        for subject in SUBJECTS:
            found[FOLDER / way / f"mmlu_{way}_{subject}.yaml"] = (
                f"include: ../_{way}_yaml\ntask: mmlu_{way}_{subject}\ntask_alias: {subject}\ndataset_name: {subject}\n"
            )
        names = "".join(f"  - mmlu_{way}_{subject}\n" for subject in SUBJECTS)
        means = "".join(f"  - {{metric: {metric}, weight_by_size: true}}\n" for metric in metrics)
        found[FOLDER / way / f"mmlu_{way}.yaml"] = (
            f"group: mmlu_{way}\ntask:\n{names}aggregate_metric_list:\n{means}metadata: {{version: 1.0}}\n"
        )
    return found


def main() -> int:
    wanted = files()
    if "--check" in sys.argv[1:]:
        there = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*/*.yaml")}
        print("current" if there == wanted else "not current: run python scripts/mmlu_tasks.py")
        return int(there != wanted)
    for path, text in wanted.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(wanted)} files in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
