# Tokens.


rule tokenizer:
    message:
        "Estimate the word pieces"
    input:
        record=f"{WORK}/tokenizer.yaml",
        references=prepared("references.jsonl", LABELLED),
    output:
        TOKENIZER,
    log:
        f"{WORK}/tokenizer.log",
    benchmark:
        f"{WORK}/tokenizer.tsv"
    resources:
        mem_mb=4000,
        runtime=60,
    shell:
        "asr-distill tokenizer {input.record:q} {input.references:q} --output {output:q} --log {log:q}"
