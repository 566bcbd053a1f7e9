# Tokens.


rule tokenizer:
    input:
        record=f"{WORK}/tokenizer.yaml",
        references=prepared("references.jsonl", LABELLED),
    output:
        TOKENIZER,
    log:
        f"{WORK}/tokenizer.log",
    benchmark:
        f"{WORK}/tokenizer.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "Estimate the word pieces"
    shell:
        "asr-distill tokenizer {input.record:q} {input.references:q} --output {output:q} --log {log:q}"
