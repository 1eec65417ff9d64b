"""The report's Chinese: what `phrases.say`, `phrases.count` and `phrases.recall` look up. {Places} are kept by name.

Names of metrics, tasks, settings and tools are not translated, and neither is anything that comes out of data.
"""

from __future__ import annotations

from pipeline.report.words_zh_data import DATA
from pipeline.report.words_zh_training import TRAINING_REMARKS

ZH = {
    # Punctuation between phrases.
    ".": "。",
    ": ": "：",
    "; ": "；",
    "{what}.": "{what}。",
    "{names} and {n} more": "{names} 等（另有 {n} 个）",
    "{low} to {high}": "{low} 至 {high}",
    # Verdict and first sentences.
    "PASS": "通过",
    "FAIL": "未通过",
    "INCONCLUSIVE": "无法判定",
    "every bound of the gate is kept": "门槛条件全部满足",
    "the gate is not passed": "没有通过门槛",
    "the intervals do not decide whether the gate is passed": "置信区间不足以判定是否通过门槛",
    "may drop by {bound} at most": "最多可下降 {bound}",
    "must gain {bound} or more": "至少须提高 {bound}",
    "verdict": "结论",
    "bound": "条件",
    "gain": "提高",
    "interval": "区间",
    "better": "变好",
    "worse": "变差",
    "no clear change": "无明显变化",
    "not tested": "未检验",
    "not comparable": "不可比",
    "{word} on {n} ({names})": "{n} 项{word}（{names}）",
    "{word} on {n} of {total} ({names})": "{total}中 {n} 项{word}（{names}）",
    "no clear change on {n}": "{n} 项无明显变化",
    "no clear change on any of {total}": "{total}均无明显变化",
    "no score could be tested ({rows} without a paired interval)": "没有可检验的分数（{rows}没有配对区间）",
    "{n} not tested": "{n} 项未检验",
    "{models} scored on {tasks}": "{models}在{tasks}上有分数",
    "the tuned model is not scored, so there is nothing to compare": "微调模型尚未评测，无从比较",
    "the base model is not scored, so there is nothing to compare": "基座模型尚未评测，无从比较",
    "No scores yet.": "尚无分数。",
    "Remarks": "说明",
    # Comparison.
    "Base against tuned": "基座模型与微调模型对比",
    "score": "分数",
    "base": "基座模型",
    "tuned": "微调模型",
    "change": "变化",
    "{level} interval": "{level} 区间",
    "p (Holm)": "p（Holm）",
    "tuned is": "微调后",
    "{rows} of subsets of {task} ({harness})": "{task}（{harness}）的 {rows}子集",
    "{rows} of subsets": "{rows}子集",
    "fewer than two items could be paired": "可配对的题目少于两道",
    "clear by itself, not after the correction": "单独看明显，校正后不明显",
    "may miss changes below {mde}": "小于 {mde} 的变化可能检测不到",
    "“Better” and “worse” need an interval without 0 and p < 0.05.": "判为“变好”或“变差”，须区间不含 0 且 p < 0.05。",
    "↓ marks metrics where lower is better.": "↓ 表示该指标越低越好。",
    "p (Holm) is corrected for the number of tests; the words go by it.": "p（Holm）已按检验次数校正，判断以它为准。",
    "Each row is tested by itself: if nothing had changed, about {wrong} of these {n} rows would still read "
    "better or worse.": "各行单独检验：即使毫无变化，这 {n} 行中仍会有约 {wrong} 行显示变好或变差。",
    "How these numbers are made": "这些数字如何得出",
    "Both models answered the same items, and the items are paired. Right/wrong scores: exact McNemar test, "
    "adjusted Wald interval (Bonett and Price) for the paired difference. Graded scores: paired permutation "
    "test and an interval of the mean difference. p (Holm): corrected for the number of tests. Scores that "
    "are not of the same implementation are never subtracted.": (
        "两个模型回答同样的题目，并按题目配对。对错型分数：精确 McNemar 检验，配对差的校正 Wald 区间（Bonett "
        "与 Price）。分级型分数：配对置换检验与平均差的区间。p（Holm）：按检验次数校正。实现方式不同的分数从"
        "不相减。"
    ),
    "Change (tuned − base) with its {level} interval": "变化（微调 − 基座）及其 {level} 区间",
    "Items whose answer flipped": "答案翻转的题目",
    "Of the items both models answered: how many turned wrong, how many turned right.": (
        "在两个模型都回答过的题目中：多少由对变错，多少由错变对。"
    ),
    "A number leads to the items.": "点击数字可查看题目。",
    "{task} by subject": "{task} 各科目",
    "sorted by change: {risen} of {n} subjects rose, {fallen} fell": (
        "按变化排序：{n} 个科目中 {risen} 个上升，{fallen} 个下降"
    ),
    "rose the most": "上升最多",
    "fell the most": "下降最多",
    "{n} subjects between": "中间的 {n} 个科目",
    "Few items each: a subject is coloured only where its own change is clear after the correction.": (
        "每科题目不多：只有校正后变化仍明显的科目才着色。"
    ),
    # Many models.
    "Scores: {suite}": "分数：{suite}",
    "± is one standard error.": "± 为一个标准误。",
    "Bold: the best number of a row; a lead of about a standard error is no lead.": (
        "粗体：该行最佳；仅领先约一个标准误不算领先。"
    ),
    "models differ in {fields}": "各模型的以下项不同：{fields}",
    "Score by training step": "分数随训练步数的变化",
    "training step": "训练步数",
    "Leaderboard": "排行榜",
    "Whiskers: 95% interval of each score by itself.": "误差线：各分数自身的 95% 区间。",
    "Whiskers: 95% interval of each score by itself. Where they overlap, the order may be chance.": (
        "误差线：各分数自身的 95% 区间。区间重叠时，名次可能出于偶然。"
    ),
    "Only one model has these scores": "只有一个模型有的分数",
    # One benchmark in several ways.
    "MMLU in {n} ways": "MMLU 的 {n} 种实现",
    "{score} (rank {rank})": "{score}（第 {rank} 名）",
    "implementation": "实现",
    "as in": "出处",
    "right is": "判对的规则",
    "Changes of order: {n}. {sure} of them hold: both differences have p < {p}, on the same items. Of the others "
    "at least one difference may be chance.": (
        "名次变化 {n} 处，{sure} 处站得住：两边的差异在相同题目上都有 p < {p}；其余的至少有一边可能出于偶然。"
    ),
    "By {first}, {one} is ahead of {other} ({a} to {b}, p {p}); by {second} it is behind ({c} to {d}, p {q}).": (
        "按 {first}，{one} 领先 {other}（{a} 比 {b}，p {p}）；按 {second} 则落后（{c} 比 {d}，p {q}）。"
    ),
    "none of the letters": "不是任一字母",
    "score by order (seed)": "各顺序（种子）的分数",
    "largest less smallest": "最大减最小",
    "standard deviation": "标准差",
    "{key}: {value}": "{key}：{value}",
    "the file's": "文件顺序",
    "What counts as right": "怎样算对",
    "The likeliest token is none of the four letters": "最可能的词元不是四个字母之一",
    "The five examples in another order": "五个示例换一种顺序",
    "No two models change places.": "没有两个模型名次互换。",
    "One question, as each of them asks it": "同一道题在各种实现中的问法",
    # The clean part, other implementations, dialogues.
    "Scores on the clean part": "干净部分的分数",
    "Contaminated: the training rows hold the item. A gain that is only there is remembered, not learned.": (
        "受污染：训练行中含有该题。只出现在这些题上的提高是记住的，而不是学会的。"
    ),
    "part": "部分",
    "all items": "全部题目",
    "clean items": "干净题目",
    "contaminated items": "受污染题目",
    "The same items through two implementations": "同一批题目的两种实现",
    "Scores of different implementations are never subtracted; here is on how many items they agree. Kappa: "
    "agreement beyond chance, 1 is full.": (
        "不同实现的分数从不相减；这里列出它们在多少道题上一致。Kappa：超出偶然的一致程度，1 为完全一致。"
    ),
    "Items on which they differ": "结论不同的题目",
    "first, its score": "第一种及其分数",
    "second, its score": "第二种及其分数",
    "both right": "都对",
    "first only": "仅第一种对",
    "second only": "仅第二种对",
    "neither": "都错",
    "agree": "一致",
    "why they differ": "不同的原因",
    "{reason}: {n}": "{reason}：{n}",
    "{model}, item {item}": "{model}，题目 {item}",
    "no answer could be made out of the text": "文本中无法识别出答案",
    "the same answer, but another rule decided": "答案相同，但判定规则不同",
    "another answer: the prompt made the difference": "答案不同：由提示造成",
    "Sample dialogues": "对话样例",
    "system": "系统",
    "user": "用户",
    "assistant": "助手",
    "the answer in the data": "数据中的答案",
    "Greedy decoding: each model writes its likeliest answer.": "贪心解码：每个模型给出其最可能的回答。",
    # Contents.
    "comparison": "对比",
    "flips": "翻转",
    "subjects": "科目",
    "scores": "分数",
    "by step": "按步数",
    "leaderboard": "排行榜",
    "clean part": "干净部分",
    "implementations": "实现方式",
    "MMLU three ways": "MMLU 的三种实现",
    "dialogues": "对话",
    "data": "数据",
    "lengths": "长度",
    "contamination": "污染",
    "how it was made": "如何得出",
} | DATA

NOUNS = {"row": "行", "score": "个分数", "model": "个模型", "task": "个任务", "stage": "个阶段"}
"""After a number."""

REMARKS = {
    "not done yet: {labels}": "尚未完成：{labels}",
    "{n} of {total} items paired: delta and interval are of these": "{total} 道题中 {n} 道可配对：差值和区间只算这些题",
    "not a mean over items: no paired interval": "不是各题平均值：没有配对区间",
    "not the same implementation: {what}": "实现方式不同：{what}",
    "{hit} of {rows} training rows hold text of items that are scored ({what}); scores on these items may be "
    "too good": "{rows} 行训练数据中有 {hit} 行含有评测题的文本（{what}）；这些题目上的分数可能偏高",
    "training rows were not compared with {names}: no local data (a `path` in the suite) to compare with": (
        "训练行未与 {names} 比对：没有可比对的本地数据（评测中的 `path`）"
    ),
    "ms-swift's template cannot encode {share} of the {name} rows and leaves them out; the first is line "
    "{line}: {error}": "ms-swift 的模板无法编码 {name} 数据中的 {share}，已略去；第一处在第 {line} 行：{error}",
    "the interval holds the bound: more items would decide": "区间含有该界限：需要更多题目才能判定",
    "no interval: the items could not be paired": "没有区间：题目无法配对",
    "no such score of base and tuned; compared tasks: {names}": "基座与微调模型没有该分数；已比较的任务：{names}",
    "the likeliest of the four letters, whatever else the model would rather write": (
        "四个字母中最可能的一个，不论模型更想写什么"
    ),
    "the model writes one token; without white space it has to be the right letter": (
        "模型写一个词元；去掉空白后须为正确字母"
    ),
    "the likeliest of the four whole answers, letter and text, summed over tokens": (
        "四个完整答案（字母与文本）中最可能的，对词元求和"
    ),
    "the likeliest of the four whole answers, letter and text, summed over tokens and divided by characters": (
        "四个完整答案（字母与文本）中最可能的，对词元求和后除以字符数"
    ),
    "the likeliest of the four whole answers, letter and text, summed over tokens and divided by their number": (
        "四个完整答案（字母与文本）中最可能的，对词元求和后除以词元数"
    ),
    "the model writes; the letter that is found in its text has to be the right one": (
        "模型作答；从其文本中找到的字母须为正确字母"
    ),
    "the installed harness": "已安装的评测工具",
} | TRAINING_REMARKS
"""Sentences that other modules write into report.json."""
