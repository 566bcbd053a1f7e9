# Training. Checkpoints lie in the run's folder state/, which is no output: Snakemake deletes outputs before a rerun.


rule train:
    input:
        run=f"{RUN}/run.yaml",
        tokenizer=run_tokenizer,
        overview=run_overview,
        parts=training_parts,
        teacher=teacher_model,
        initial=initial_encoder,
        pseudo_labels=pseudo_labels,
        soft_labels=soft_labels,
    output:
        model=f"{RUN}/model.safetensors",
        curve=f"{RUN}/curve.csv",
        summary=f"{RUN}/training.json",
    log:
        f"{RUN}/train.log",
    benchmark:
        f"{RUN}/train.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        nodes=1,
        mem_mb=growing(8000),
        runtime=24 * 60,  # no growth: a retry goes on from the last checkpoint
    params:
        corpus=corpus_folder,
        folder=run_folder,
        tokenizer=tokenizer_option,
        teacher=teacher_option,
        initial=initial_option,
        soft_labels=soft_label_option,
        pseudo_labels=pseudo_label_options,
    message:
        "Train {wildcards.run} (seed {wildcards.seed})"
    shell:
        "asr-distill train {input.run:q} --corpus {params.corpus:q} --output {params.folder:q} "
        "{params.tokenizer:q} {params.teacher:q} {params.initial:q} {params.soft_labels:q} {params.pseudo_labels:q} "
        "--processes $(({resources.gpu} / {resources.nodes})) --nodes {resources.nodes} --threads {threads} --log {log:q}"


use rule train as train_teacher with:
    wildcard_constraints:
        run=one_of(TEACHERS),
    priority: 10  # others wait for it


use rule train as train_large with:
    wildcard_constraints:
        run=one_of(AS_LARGE_AS_TEACHER),
    priority: 5  # the longest first, so that none is left for one core at the end


use rule train as train_with_decoder with:
    output:
        **rules.train.output,
        decoder=f"{RUN}/decoder.safetensors",
    wildcard_constraints:
        run=one_of(WITH_DECODER),


use rule train as pretrain with:
    output:
        encoder=f"{RUN}/encoder.safetensors",
        curve=f"{RUN}/curve.csv",
        summary=f"{RUN}/training.json",
    wildcard_constraints:
        run=one_of(PRETRAINING),
    priority: 10  # others wait for it
    message:
        "Pre-train the encoder {wildcards.run} (seed {wildcards.seed})"


ruleorder: train_teacher > train_large > train_with_decoder > pretrain > train
