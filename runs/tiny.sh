#!/usr/bin/env bash
# tiny: a model of every part, from nothing, through every stage of training, to a checkpoint that hears, sees, reads and speaks
# noise: what runs/nano.sh does in hours, in ten minutes on two cores.
#
#   runs/tiny.sh [OUT]        OUT (out/tiny) is the checkpoint, OUT.runs holds data and stages
#   thinktalk chat --model out/tiny --text "How many legs has a dog?" --out answer.wav
#
# What is there is passed by: after a crash, or to try one stage again (remove its folder), give the same command.
. "$(dirname "$0")/../scripts/setup.sh"
PATH="$PWD/.venv/bin:$PATH"
command -v thinktalk >/dev/null || setup train
out=${1:-out/tiny}
runs=$out.runs
data=$runs/data
mkdir -p "$runs"
began=$SECONDS
stages=()

# made FOLDER COMMAND...: data that are made once; the folder appears whole or not at all
made() {
    local folder=$1
    shift
    if [ -e "$folder.whole" ]; then return; fi
    say "== $folder"
    "$@" --out "$folder" >&2
    touch "$folder.whole"
}

# stage NAME RECIPE FIELD=VALUE...: trains from the last model to the next
stage() {
    local name=$1 recipe=$2 words=() field
    local run=$runs/$name
    shift 2
    stages+=("$run")
    if [ ! -e "$run/model/config.json" ]; then
        say "== $name ($((SECONDS - began)) s)"
        for field in "$@"; do words+=(--set "$field"); done
        if [ -n "${model:-}" ]; then words+=(--set "start=$model"); fi
        thinktalk train "$recipe" --out "$run" "${words[@]}" >&2
    fi
    model=$run/model
}

# ------------------------------------------------------------------------------------------------------------- the data
# robot voices that pip brings, questions with exact answers typed and spoken, pictures, sounds, videos without and with sound
made "$data/speech" thinktalk data make --world speech --engine espeak --kind sentences --texts templates questions --count 300
made "$data/dialogues" thinktalk data make --world speech --engine espeak --kind dialogues --count 150
made "$data/text" thinktalk data make --world text --count 1000
made "$data/pictures" thinktalk data make --world pictures --count 400
made "$data/sounds" thinktalk data make --world sounds --count 200
made "$data/videos" thinktalk data make --world videos --count 100
made "$data/omni" thinktalk data make --world omni --count 100
speech=$data/speech/train-*.tar
dialogues=$data/dialogues/train-*.tar
text=$data/text/train-*.tar
pictures=$data/pictures/train-*.tar
sounds=$data/sounds/train-*.tar
videos=$data/videos/train-*.tar,$data/omni/train-*.tar

# ----------------------------------------------------------------------------------------------------------- the stages
model=
stage init init size=tiny "texts=[\"$text\",\"$speech\"]" \
    'voices=["espeak_en-us+f2","espeak_en-us+m3","espeak_en+f4","espeak_en+m1"]'

# senses: in the place of Whisper and Qwen2.5-VL
stage i1_ears i1_ears "shards=$speech,$dialogues" batch_seconds=30 steps=150
stage i2_eyes i2_eyes "shards=$pictures" tokens=1024 steps=100

# the codec: speech to codes, codes to mel, mel to wave
stage c1_tokenizer c1_tokenizer "shards=$speech,$dialogues" batch_seconds=30 steps=100
coded=$runs/c1_tokenizer/coded
made "$coded/speech" thinktalk data codes --model "$model" "$speech"
made "$coded/dialogues" thinktalk data codes --model "$model" "$dialogues"
spoken=$coded/speech/*.tar
answers=$coded/dialogues/*.tar
stage c2_flow c2_flow "shards=$spoken,$answers" batch_seconds=15 steps=100
stage c3_vocoder c3_vocoder "shards=$spoken,$answers" batch_seconds=4 steps=60

# the Thinker: words first (in the place of Qwen2.5), then what it hears and sees, then what is long, then how to answer speech
stage p0_words p2_joint "shards=$text" learns=thinker tokens=2048 steps=150 optim.lr=3e-3
stage p1_align p1_align "shards=$speech,$pictures" tokens=1536 steps=60
stage p2_joint p2_joint "shards=$text,$speech,$pictures,$sounds" tokens=1536 steps=100 optim.lr=2e-3
stage p3_long p3_long "shards=$videos" tokens=4096 steps=30 optim.lr=2e-3
stage s1_sft s1_sft "shards=$dialogues,$text@0.3,$pictures@0.3" lora.rank=8 tokens=1536 steps=60 optim.lr=5e-3

# the Talker: speech in context, what is heard right, chosen voices; what the Thinker tells it is kept, it is the same in all three
stage k1_icl k1_icl "shards=$spoken" "dialogues=$answers" "states=$runs/s1_sft/states" batch_tokens=3000 steps=250 eos_weight=1 \
    optim.lr=4e-3
# a Talker so young is judged by its length alone, and the best of its samples may be bad
stage k2_dpo k2_dpo "shards=$spoken" "states=$runs/s1_sft/states" "judge=reader:$runs/c1_tokenizer" batch_tokens=2000 steps=20 \
    mining.prompts=48 mining.samples=6 mining.shortest=0.1 mining.worst_chosen=100 mining.gap=0.01 mining.length_ratio=1000 optim.lr=2e-4
stage k3_speaker k3_speaker "shards=$spoken" "dialogues=$answers" "states=$runs/s1_sft/states" batch_tokens=3000 steps=40 eos_weight=1 optim.lr=5e-4

# -------------------------------------------------------------------------------------------------------------- the end
rm -rf "$out.fresh"
cp -rl "$model" "$out.fresh"
rm -rf "$out"
mv "$out.fresh" "$out"
python runs/table.py "${stages[@]}"
say "$out: $((SECONDS - began)) seconds. Try: thinktalk chat --model $out --text 'What is two plus three?' --out answer.wav"
