"""The Chinese of the report's part on what a training took. See words_zh.py."""

from __future__ import annotations

TRAINING = {
    "Result": "结果",
    "Speed and use of the hardware": "速度与硬件利用",
    "Planned and measured": "计划与实测",
    "Planned memory": "计划的显存或内存",
    "without start-up, evaluation and saving": "不含启动、评测与保存",
    "without start-up; saving is in it": "不含启动，含保存",
    "with start-up: too few steps to leave it out": "含启动：步数太少，无法除去",
    "tokens/s": "每秒词元数",
    "tokens/s per GPU": "每 GPU 每秒词元数",
    "tokens/s per process": "每进程每秒词元数",
    "with padding": "含填充",
    "share of padding": "填充占比",
    "GPUs": "GPU 数",
    "processes": "进程数",
    "conversations/s": "每秒对话数",
    "tokens per step": "每步词元数",
    "seconds per step": "每步用时",
    "median, 95% below": "中位数，95% 低于",
    "peak memory of a GPU": "单 GPU 显存峰值",
    "peak main memory": "内存峰值",
    "attempts": "尝试次数",
    "GPU hours": "GPU 小时",
    "cost": "费用",
    "Real tokens, padding not counted, over {measured} optimizer steps, {how}.": (
        "只计真实词元，不计填充；取自 {measured} 个优化步，{how}。"
    ),
    "Measured over {measured} optimizer steps, {how}.": "取自 {measured} 个优化步，{how}。",
    "MFU = tokens/s × FLOPs per token / peak = {speed} × {flops}e9 / {peak}e12 ({device}) = {mfu}. A token "
    "costs 6 FLOPs per trained weight, 4 per frozen one, and attention; what gradient checkpointing does twice is not "
    "counted.": (
        "MFU = 每秒词元数 × 每词元 FLOPs / 峰值 = {speed} × {flops}e9 / {peak}e12（{device}）= {mfu}。每词元每个"
        "受训权重 6 FLOPs、冻结权重 4 FLOPs，另加注意力；梯度检查点的重复计算不计入。"
    ),
    "No MFU: the peak of {device} is not known.": "没有 MFU：{device}的峰值未知。",
    "these GPUs": "这些 GPU ",
    "tokens in one epoch": "每轮词元数",
    "weights that are trained": "受训权重数",
    "memory, at its peak": "内存（显存）峰值",
    "planned": "计划",
    "actual": "实际",
    "off by": "偏差",
    "within": "在范围内",
    "weights of the model": "模型权重",
    "adapter": "适配器",
    "gradients": "梯度",
    "optimizer": "优化器状态",
    "activations": "激活值",
    "logits": "logits",
    "context, buffers, fragmentation": "上下文、缓冲与碎片",
    "per GPU": "每 GPU",
    "per process": "每进程",
    # The merge check.
    "Is the merged model the trained one?": "合并后的模型就是训练出的模型吗？",
    "the merged model is base and adapter": "合并后的模型即基座加适配器",
    "the exported weights are those of the checkpoint": "导出的权重即检查点的权重",
    "the merged model is not what was trained": "合并后的模型不是训练出的模型",
    "the training changed nothing": "训练没有改变任何东西",
    "what the adapter changes is less than rounding": "适配器的改变小于舍入误差",
    "the weights were not compared": "没有比较权重",
    "distance from base and adapter, nats": "与基座加适配器的距离（nat）",
    "may be rounding up to": "舍入误差最多",
    "largest difference": "最大差异",
    "the same likeliest token": "最可能词元相同",
    "what the adapter changes, nats": "适配器带来的改变（nat）",
    "asked": "提问",
    "{n} prompts, {tokens} tokens": "{n} 个提示，{tokens} 个词元",
    "{n} of {total}": "{total} 个中 {n} 个",
    "prompts rendered as in training": "与训练时一致的提示",
    "tensors compared": "比较的张量",
    "different": "不同",
    "missing": "缺失",
    "changed by the training": "训练改变的",
    "prompt": "提示",
    "difference": "差异",
    "remedy": "办法",
    "Mean absolute difference of log-probabilities over all tokens of the vocabulary; what rounding the merged weights "
    "alone does was measured on the same prompts.": (
        "对词表全部词元取对数概率绝对差的平均；仅由合并权重的舍入造成的差异，已在同样的提示上测得。"
    ),
    "Prompts that differ from training": "与训练时不同的提示",
    "merge": "合并检查",
}
TRAINING_REMARKS = {
    "plan: data.tokens is off: tokens, dropped rows and packed rows are not known": (
        "计划：data.tokens 已关闭：词元数、丢弃行与打包行未知"
    ),
    "plan: about {n} of {total} rows ({share}) will be left out: too long, not to be encoded, or with nothing "
    "to learn": ("计划：{total} 行中约 {n} 行（{share}）将被略去：过长、无法编码或没有可学的词元"),
    "plan: {n} of {total} rows ({share}) will be left out: too long, not to be encoded, or with nothing to learn": (
        "计划：{total} 行中有 {n} 行（{share}）将被略去：过长、无法编码或没有可学的词元"
    ),
    "plan: about {n} of {total} rows ({share}) will be cut at {tokens} tokens": (
        "计划：{total} 行中约 {n} 行（{share}）将在 {tokens} 个词元处截断"
    ),
    "plan: {n} of {total} rows ({share}) will be cut at {tokens} tokens": (
        "计划：{total} 行中有 {n} 行（{share}）将在 {tokens} 个词元处截断"
    ),
    "plan: memory is tight: about {need} of {room} GiB, and the estimate is good to some 15 %": (
        "计划：内存（显存）吃紧：约 {need} GiB，共 {room} GiB，而估计的误差约为 15 %"
    ),
    "plan: train.epochs: {rows} rows, packed into {units}, in batches of {batch}, make 1 optimizer step in all; "
    "set {ways}; or give max_steps, if so few are meant": (
        "计划：train.epochs：{rows} 行 打包成 {units} 行，每批 {batch}，一共只有 1 个优化步；请设 {ways}；"
        "若确实只要这么少，给出 max_steps"
    ),
    "plan: train.epochs: {rows} rows, packed into {units}, in batches of {batch}, make {n} optimizer steps in all; "
    "set {ways}; or give max_steps, if so few are meant": (
        "计划：train.epochs：{rows} 行 打包成 {units} 行，每批 {batch}，一共只有 {n} 个优化步；请设 {ways}；"
        "若确实只要这么少，给出 max_steps"
    ),
    "plan: train.epochs: {rows} rows, in batches of {batch}, make 1 optimizer step in all; "
    "set {ways}; or give max_steps, if so few are meant": (
        "计划：train.epochs：{rows} 行，每批 {batch}，一共只有 1 个优化步；请设 {ways}；"
        "若确实只要这么少，给出 max_steps"
    ),
    "plan: train.epochs: {rows} rows, in batches of {batch}, make {n} optimizer steps in all; "
    "set {ways}; or give max_steps, if so few are meant": (
        "计划：train.epochs：{rows} 行，每批 {batch}，一共只有 {n} 个优化步；请设 {ways}；"
        "若确实只要这么少，给出 max_steps"
    ),
    "plan: train.max_length: {tokens} tokens leave nothing to learn of {n} of {total} rows ({share}); raise it": (
        "计划：train.max_length：{tokens} 个词元使 {total} 行中的 {n} 行（{share}）没有可学的内容；请调大"
    ),
    "plan: train.max_length: {tokens} tokens leave nothing to learn of about {n} of {total} rows ({share}); raise it": (
        "计划：train.max_length：{tokens} 个词元使 {total} 行中约 {n} 行（{share}）没有可学的内容；请调大"
    ),
    "plan: train.max_length: {tokens} tokens with truncation: delete drops {n} of {total} rows ({share}); raise it, "
    "or set truncation: right": (
        "计划：train.max_length：truncation: delete 时 {tokens} 个词元会丢弃 {total} 行中的 {n} 行（{share}）；"
        "请调大，或设 truncation: right"
    ),
    "plan: train.max_length: {tokens} tokens with truncation: delete drops about {n} of {total} rows ({share}); raise "
    "it, or set truncation: right": (
        "计划：train.max_length：truncation: delete 时 {tokens} 个词元会丢弃 {total} 行中约 {n} 行（{share}）；"
        "请调大，或设 truncation: right"
    ),
    "plan: max_steps: {n} steps go {times} times over the data": "计划：max_steps：{n} 步相当于遍历数据 {times} 次",
    "plan: the model's files do not say enough of its shape: memory and time are not estimated": (
        "计划：模型文件不足以说明其结构：未估计内存与用时"
    ),
    "plan: no peak is known of {device}: no expected time": "计划：{device} 的峰值未知：没有预计用时",
    "training: the loss does not fall: it began at {first} and is {last} at step {step}; is train.learning_rate too "
    "low, or do the answers not follow from the questions?": (
        "训练：损失没有下降：开始为 {first}，第 {step} 步为 {last}；是 train.learning_rate 太低，还是答案与问题无关？"
    ),
    "training: the loss rises: it began at {first} and is {last} at step {step}; is train.learning_rate too high?": (
        "训练：损失上升：开始为 {first}，第 {step} 步为 {last}；是 train.learning_rate 太高？"
    ),
    "training: a step takes {now} s, {times} times as long as before ({usual} s): does something else use the GPUs, "
    "the cores or the disk, or are they throttled (heat, power)?": (
        "训练：每步用时 {now} 秒，是此前（{usual} 秒）的 {times} 倍：是否有别的程序在用 GPU、CPU 或磁盘，"
        "或因温度、功耗而降频？"
    ),
    "training: passed over {checkpoint} of attempt {attempt}: {why}": (
        "训练：跳过第 {attempt} 次尝试的 {checkpoint}：{why}"
    ),
    "training: no checkpoint to go on from: from the beginning": "训练：没有可以接着训练的检查点：从头开始",
    "training: started a second time: {why}": "训练：又启动了一次：{why}",
    "merge: the adapter changes next to nothing: log-probabilities by {change} on average, where rounding the merged "
    "weights to {dtype} may cost {tolerance}; train longer or at a higher learning rate, or set export.precision: "
    "float32": (
        "合并：适配器几乎没有改变什么：对数概率平均变化 {change}，而合并权重舍入到 {dtype} 就可能差 {tolerance}；"
        "请训练更久、提高学习率，或设 export.precision: float32"
    ),
    "merge: trained on a base quantized to {bits} and merged into the whole one: the merge was checked against the "
    "whole base + adapter; what the adapter had learned about the quantization is lost": (
        "合并：在量化为 {bits} 的基座上训练，合并进完整基座：已与完整基座加适配器比较；"
        "适配器针对量化误差学到的部分会丢失"
    ),
    "merge: the merged folder renders prompts other than the base model's does ({cases}), so base and tuned were not "
    "asked the same: compare tokenizer_config.json and chat_template.jinja of both": (
        "合并：合并后的模型渲染出的提示与基座不同（{cases}），两者被问的不一样："
        "请比较双方的 tokenizer_config.json 和 chat_template.jinja"
    ),
    "merge: prompts differ between training and {who} ({which}): {diff}": (
        "合并：训练与 {who} 的提示不同（{which}）：{diff}"
    ),
    "merge: the merged model was not compared with base + adapter: {why}": "合并：未与基座加适配器比较：{why}",
    "merge: the training changed nothing: base, base + adapter and the merged model give the same probabilities": (
        "合并：训练没有改变任何东西：基座、基座加适配器与合并后的模型给出相同概率"
    ),
}
"""Remarks of plan, training and merge check, as `training_remarks` puts them into report.json."""
