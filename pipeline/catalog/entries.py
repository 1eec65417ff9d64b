"""The catalogue's benchmarks. What a harness itself declares (kind, hub id, few-shot) is read from it, and not here.

Names, splits and configurations are lm-eval 0.4.13's and EvalScope 1.14.1's; a test compares them with the installed.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.catalog.entry import Entry, EvalScopeSet, HarnessName, LmEvalTask

_MMLU = tuple(
    """
    abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
    econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
    high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
    high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
    high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
    human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management
    marketing medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory
    professional_accounting professional_law professional_medicine professional_psychology public_relations
    security_studies sociology us_foreign_policy virology world_religions
    """.split()
)

_CMMLU = tuple(
    """
    agronomy anatomy ancient_chinese arts astronomy business_ethics chinese_civil_service_exam chinese_driving_rule
    chinese_food_culture chinese_foreign_policy chinese_history chinese_literature chinese_teacher_qualification
    clinical_knowledge college_actuarial_science college_education college_engineering_hydrology college_law
    college_mathematics college_medical_statistics college_medicine computer_science computer_security
    conceptual_physics construction_project_management economics education electrical_engineering elementary_chinese
    elementary_commonsense elementary_information_and_technology elementary_mathematics ethnology food_science
    genetics global_facts high_school_biology high_school_chemistry high_school_geography high_school_mathematics
    high_school_physics high_school_politics human_sexuality international_law journalism jurisprudence
    legal_and_moral_basis logical machine_learning management marketing marxist_theory modern_chinese nutrition
    philosophy professional_accounting professional_law professional_medicine professional_psychology public_relations
    security_study sociology sports_science traditional_chinese_medicine virology world_history world_religions
    """.split()
)

_CEVAL = tuple(
    """
    accountant advanced_mathematics art_studies basic_medicine business_administration chinese_language_and_literature
    civil_servant clinical_medicine college_chemistry college_economics college_physics college_programming
    computer_architecture computer_network discrete_mathematics education_science electrical_engineer
    environmental_impact_assessment_engineer fire_engineer high_school_biology high_school_chemistry
    high_school_chinese high_school_geography high_school_history high_school_mathematics high_school_physics
    high_school_politics ideological_and_moral_cultivation law legal_professional logic mao_zedong_thought marxism
    metrology_engineer middle_school_biology middle_school_chemistry middle_school_geography middle_school_history
    middle_school_mathematics middle_school_physics middle_school_politics modern_chinese_history operating_system
    physician plant_protection probability_and_statistics professional_tour_guide sports_science tax_accountant
    teacher_qualification urban_and_rural_planner veterinary_medicine
    """.split()
)

_BBH = tuple(
    """
    boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages formal_fallacies
    geometric_shapes hyperbaton logical_deduction_five_objects logical_deduction_seven_objects
    logical_deduction_three_objects movie_recommendation multistep_arithmetic_two navigate object_counting
    penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks
    sports_understanding temporal_sequences tracking_shuffled_objects_five_objects
    tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects web_of_lies word_sorting
    """.split()
)

_TRAIN = {"training_split": "train"}
_VALIDATION = {"validation_split": "validation"}
_TEST = {"test_split": "test"}
_ALL = {**_TRAIN, **_VALIDATION, **_TEST}
_EN, _ZH = ("en",), ("zh",)


def _lm(name: str, splits: Mapping[str, str], config: str | None = None) -> LmEvalTask:
    return LmEvalTask(name, config=config, splits=splits)


def _group(name: str, subset: str | None, splits: Mapping[str, str]) -> LmEvalTask:
    return LmEvalTask(name, group=True, subset=subset, splits=splits)


_ROWS = (
    Entry("arc", "ARC, both parts", _EN, None, EvalScopeSet("arc"), "arc"),
    Entry(
        "arc_easy", "ARC Easy: grade-school science", _EN,
        _lm("arc_easy", _ALL, "ARC-Easy"), EvalScopeSet("arc", ("ARC-Easy",)), "arc",
    ),
    Entry(
        "arc_challenge", "ARC Challenge: grade-school science, the hard part", _EN,
        _lm("arc_challenge", _ALL, "ARC-Challenge"), EvalScopeSet("arc", ("ARC-Challenge",)), "arc",
    ),
    Entry(
        "hellaswag", "HellaSwag: which sentence comes next", _EN,
        _lm("hellaswag", {**_TRAIN, **_VALIDATION}), EvalScopeSet("hellaswag"), "hellaswag",
    ),
    Entry(
        "piqa", "PIQA: everyday physics", _EN, _lm("piqa", {**_TRAIN, **_VALIDATION}), EvalScopeSet("piqa"), "piqa",
    ),
    Entry(
        "winogrande", "WinoGrande: what a pronoun refers to", _EN,
        _lm("winogrande", {**_TRAIN, **_VALIDATION}, "winogrande_xl"), EvalScopeSet("winogrande"), "winogrande",
    ),
    Entry(
        "openbookqa", "OpenBookQA: elementary science", _EN, _lm("openbookqa", _ALL, "main"), None, "openbookqa",
    ),
    Entry(
        "boolq", "BoolQ: yes or no, from a passage", _EN,
        _lm("boolq", {**_TRAIN, **_VALIDATION}, "boolq"), EvalScopeSet("boolq"), "boolq",
    ),
    Entry(
        "mmlu", "MMLU: 57 subjects", _EN,
        _group("mmlu", "mmlu_{}", {**_TEST, "fewshot_split": "dev"}), EvalScopeSet("mmlu"), "mmlu", _MMLU,
    ),
    *(
        Entry(
            f"mmlu_{way}", f"MMLU as {who}", _EN,
            _group(f"mmlu_{way}", f"mmlu_{way}_{{}}", {**_TEST, "fewshot_split": "dev"}), None, "mmlu", _MMLU,
        )
        for way, who in (
            ("original", "its authors evaluate it (docs/mmlu.md)"),
            ("helm", "HELM evaluates it (docs/mmlu.md)"),
            ("harness_2023", "lm-evaluation-harness did in 2023 (docs/mmlu.md)"),
        )
    ),
    Entry(
        "mmlu_pro", "MMLU-Pro: 14 subjects, ten choices", _EN,
        _group("mmlu_pro", None, {**_TEST, "fewshot_split": "validation"}), EvalScopeSet("mmlu_pro"), "mmlu_pro",
    ),
    Entry(
        "gsm8k", "GSM8K: grade-school sums in words", _EN,
        _lm("gsm8k", {**_TRAIN, **_TEST, "fewshot_split": "train"}, "main"), EvalScopeSet("gsm8k"), "gsm8k",
    ),
    Entry(
        "ceval", "C-Eval: 52 subjects, Chinese", _ZH,
        _group("ceval-valid", "ceval-valid_{}", {"validation_split": "val", "fewshot_split": "dev"}),
        EvalScopeSet("ceval"), "ceval", _CEVAL,
    ),
    Entry(
        "cmmlu", "CMMLU: 67 subjects, Chinese", _ZH,
        _group("cmmlu", "cmmlu_{}", {**_TEST, "fewshot_split": "dev"}), EvalScopeSet("cmmlu"), "cmmlu", _CMMLU,
    ),
    Entry(
        "bbh", "BIG-Bench Hard: 27 kinds of reasoning", _EN,
        _group("bbh", "bbh_cot_fewshot_{}", _TEST), EvalScopeSet("bbh"), "bbh", _BBH,
    ),
    Entry(
        "competition_math", "Competition MATH", _EN,
        _group("hendrycks_math", None, {**_TRAIN, **_TEST}), EvalScopeSet("competition_math"), "competition_math",
    ),
    Entry(
        "math_500", "MATH-500: 500 of Competition MATH", _EN,
        _lm("hendrycks_math500", _TEST, "default"), EvalScopeSet("math_500"), "math_500",
    ),
    Entry(
        "race", "RACE: reading for school (lm-eval asks the part `high`)", _EN,
        _lm("race", _TEST, "high"), EvalScopeSet("race"), "race",
    ),
    Entry(
        "trivia_qa", "TriviaQA (lm-eval without, EvalScope with the page)", _EN,
        _lm("triviaqa", {**_TRAIN, **_VALIDATION}, "rc.nocontext"), EvalScopeSet("trivia_qa"), "trivia_qa",
    ),
    Entry(
        "truthful_qa", "TruthfulQA, one right answer", _EN,
        _lm("truthfulqa_mc1", _VALIDATION, "multiple_choice"), EvalScopeSet("truthful_qa"), "truthful_qa",
    ),
    Entry(
        "chinese_simpleqa", "Chinese SimpleQA: short facts", _ZH, None,
        EvalScopeSet("chinese_simpleqa"), "chinese_simpleqa",
    ),
    Entry("simple_qa", "SimpleQA: short facts", _EN, None, EvalScopeSet("simple_qa"), "simple_qa"),
    Entry(
        "humaneval", "HumanEval: Python functions, run", _EN,
        _lm("humaneval", _TEST), EvalScopeSet("humaneval"), "humaneval",
    ),
    Entry("mbpp", "MBPP: Python exercises, run", _EN, _lm("mbpp", _TEST, "full"), EvalScopeSet("mbpp"), "mbpp"),
    Entry(
        "ifeval", "IFEval: instructions that can be checked", _EN,
        _lm("ifeval", {"test_split": "train"}), EvalScopeSet("ifeval"), "ifeval",
    ),
    Entry(
        "commonsense_qa", "CommonsenseQA", _EN,
        _lm("commonsense_qa", {**_TRAIN, **_VALIDATION}), EvalScopeSet("commonsense_qa"), "commonsense_qa",
    ),
    Entry("sciq", "SciQ: science exams", _EN, _lm("sciq", _ALL), EvalScopeSet("sciq"), "sciq"),
    Entry("math_qa", "MathQA", _EN, _lm("mathqa", _ALL), EvalScopeSet("math_qa"), "math_qa"),
    Entry("logi_qa", "LogiQA", _EN, _lm("logiqa", _ALL, "logiqa"), EvalScopeSet("logi_qa"), "logi_qa"),
    Entry("siqa", "Social IQa", _EN, _lm("social_iqa", {**_TRAIN, **_VALIDATION}), EvalScopeSet("siqa"), "siqa"),
    Entry("drop", "DROP: sums of a passage", _EN, _lm("drop", {**_TRAIN, **_VALIDATION}), EvalScopeSet("drop"), "drop"),
    Entry(
        "gpqa_diamond", "GPQA Diamond: graduate science", _EN,
        _lm("gpqa_diamond_zeroshot", {"training_split": "train", "validation_split": "train"}, "gpqa_diamond"),
        EvalScopeSet("gpqa_diamond"), "gpqa_diamond",
    ),
    Entry("cmath", "CMATH: sums in words, Chinese", _ZH, None, EvalScopeSet("cmath"), "cmath"),
)  # fmt: skip

ENTRIES: Mapping[str, Entry] = {entry.name: entry for entry in _ROWS}

_QA = "question answer"
_MCQ = "question choices answer"
_ARC = "question choices answerKey"
_HELLASWAG = "ctx_a ctx_b endings label"
_LETTERS = "question A B C D answer"
COLUMNS: Mapping[HarnessName, Mapping[str, str]] = {
    "lm_eval": {
        "arc_easy": _ARC, "arc_challenge": _ARC, "hellaswag": f"{_HELLASWAG} activity_label",
        "piqa": "goal sol1 sol2 label", "winogrande": "sentence option1 option2 answer",
        "openbookqa": "question_stem choices answerKey", "boolq": "passage question label", "gsm8k": _QA, "mmlu": _MCQ,
        "ceval": _LETTERS, "cmmlu": "Question A B C D Answer", "bbh": "input target",
    },
    "evalscope": {
        "arc": _ARC, "arc_easy": _ARC, "arc_challenge": _ARC, "hellaswag": _HELLASWAG, "piqa": _MCQ,
        "winogrande": "sentence option1 option2 answer", "boolq": "passage question answer", "gsm8k": _QA,
        "mmlu": f"{_MCQ} subject", "ceval": _LETTERS, "cmmlu": f"{_MCQ} category", "bbh": "input target",
    },
}  # fmt: skip
"""Columns without which a harness ends with a KeyError, by common name; the two want the same data differently."""
