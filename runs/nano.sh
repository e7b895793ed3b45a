#!/usr/bin/env bash
# nano: the small model that is shipped, from nothing: data from seeds, then every stage in order, then packed.
#
#   runs/nano.sh                     hours on a CPU; each stage as long as the list below says
#   runs/nano.sh --minutes 0.3       a rehearsal: little data, every stage 0.3 minutes
#   runs/nano.sh --minutes 20 --device cuda
#
#   --out DIR       out/nano: data/, one folder a stage with its model, model/ (packed)
#   --minutes M     for every stage, in the place of its own
#   --device D      cpu or cuda (auto)
#   --ranks N       processes that the Thinker's and the Talker's long stages share: 2 where a CPU has two cores
#   --engine E      who speaks: kokoro (natural), espeak, flite; kokoro, in a rehearsal espeak
#   --size S        nano, or tiny to try this script
#   --ship          the packed model goes into thinktalk/pretrained/nano too
#
# What is there is passed by, and a stage that was stopped goes on: after a crash give the same command. To make a stage anew
# remove its folder and those after it. A folder of data with a file FOLDER.whole beside it is taken as it is. More
# speech of your own (docs/data.md) goes into OUT/data/corpus. One part alone is put into a packed model by
#   thinktalk convert out/nano/c2_flow/model thinktalk/pretrained/nano --pack --stages dit
. "$(dirname "$0")/../scripts/setup.sh"
PATH="$PWD/.venv/bin:$PATH"
command -v thinktalk >/dev/null || setup train

out=out/nano minutes="" device=auto engine="" size=nano ship="" ranks=""
while [ $# -gt 0 ]; do
    case $1 in
    --ship) ship=yes ;;
    --out | --minutes | --device | --engine | --size | --ranks)
        [ $# -gt 1 ] || { say "runs/nano.sh: $1 wants a value"; exit 2; }
        declare "${1#--}=$2"
        shift
        ;;
    *)
        say "runs/nano.sh: $1 is no option; see the top of the file"
        exit 2
        ;;
    esac
    shift
done
case $minutes in *[!0-9.]*) say "runs/nano.sh: --minutes $minutes: expected a number" && exit 2 ;; esac
data=$out/data
mkdir -p "$data"
began=$SECONDS
stages=()
if [ "$device" = auto ]; then
    device=$(python -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
fi
# a GPU is fed with eight times as much at a time, by processes that read ahead
if [ "$device" = cpu ]; then tokens=4096 sound=60 waves=15 workers=0; else tokens=32768 sound=480 waves=240 workers=8; fi
# on a CPU two processes of one thread each get through more than one of two threads
if [ -z "$ranks" ]; then ranks=$([ "$device" = cpu ] && [ "$(nproc)" -gt 1 ] && echo 2 || echo 1); fi
rehearsal=$(awk -v m="${minutes:-60}" 'BEGIN { print (m < 1) ? "yes" : "" }')
flite=$(python -c 'import ctypes.util; print(ctypes.util.find_library("flite") or "")')
engine=${engine:-$([ -n "$rehearsal" ] && echo espeak || echo kokoro)}

# some FULL: how many samples of a world; few in a rehearsal
some() { if [ -n "$rehearsal" ]; then echo $(($1 / 400 + 24)); else echo "$1"; fi; }

# world FOLDER COUNT OPTIONS...: data made once, going on where they were stopped
world() {
    local folder=$data/$1 count
    count=$(some "$2")
    shift 2
    if [ -e "$folder.whole" ]; then return; fi
    say "== $folder ($count)"
    thinktalk data make "$@" --count "$count" --out "$folder" >&2
    touch "$folder.whole"
}

# stage FOLDER RECIPE MINUTES FIELD=VALUE...: trains from the last model to the next
stage() { train thinktalk "$@"; }

# the same by so many processes
shared() {
    if [ "$ranks" = 1 ]; then
        stage "$@"
    else
        train "torchrun --standalone --nproc-per-node $ranks -m thinktalk.cli.main" "$@"
    fi
}

train() {
    local by=$1 run=$out/$2 recipe=$3 time=${minutes:-$4} words=() field seconds
    shift 4
    stages+=("$run")
    if [ ! -e "$run/model/config.json" ]; then
        seconds=$(awk -v m="$time" 'BEGIN { print 60 * m }')
        say "== $run ($time minutes; $((SECONDS - began)) s so far)"
        # the clock ends a stage, and drives its schedule
        for field in "start=$model" "device=$device" steps=100000000 "seconds=$seconds" "$@"; do
            words+=(--set "$field")
        done
        # shellcheck disable=SC2086  # the words of a command
        $by train "$recipe" --out "$run" "${words[@]}" >&2
    fi
    model=$run/model
}

# ----------------------------------------------------------------------------------------------------------------- data

world text 80000 --world text --seed 11
world drills 60000 --world drills --seed 11
# what has to be understood, not known: more of it than of capitals
world skills 80000 --world text --skills arithmetic,clock,comparison,counting,memory,spelling --seed 12
world pictures 15000 --world pictures --seed 7
world sounds 8000 --world sounds --seed 7
world videos 6000 --world videos --seed 7
world omni 6000 --world omni --seed 7
# a rehearsal fetches no texts
texts="chitchat wordnet"
if [ -n "$rehearsal" ]; then texts="templates questions"; fi
world dialogues 2500 --world speech --engine "$engine" --kind dialogues --seed 1
world sentences 30000 --world speech --engine "$engine" --kind sentences --texts $texts --blends 300 --seed 1
world robots 4000 --world speech --engine espeak --kind sentences --texts $texts --seed 2
speech=$data/sentences/train-*.tar,$data/robots/train-*.tar asked=$data/dialogues/train-*.tar
if [ -e "$data/corpus" ]; then speech+=,$data/corpus/train-*.tar; fi
# sixty times as fast as it is heard: other words, other questions, by other voices, which nobody answers in
if [ -n "$flite" ]; then
    world flite 25000 --world speech --engine flite --kind sentences --texts $texts --seed 31
    world asked 6000 --world speech --engine flite --kind dialogues --seed 41
    speech+=,$data/flite/train-*.tar asked+=,$data/asked/train-*.tar
else
    say "No flite (apt-get install libflite1): fewer sentences to hear"
fi
seen=$data/pictures/train-*.tar
if [ -z "$rehearsal" ]; then # half a gigabyte of packages
    world objects 15000 --world objects --seed 7
    seen+=,$data/objects/train-*.tar
fi
# weights are shares of tokens
media=${seen//,/@0.2,}@0.2,$data/videos/train-*.tar@0.15,$data/sounds/train-*.tar@0.1,$data/omni/train-*.tar@0.15
talks=$data/text/train-*.tar@0.1,$data/skills/train-*.tar@0.15,$data/drills/train-*.tar@0.1,${asked//,/@0.15,}@0.15

# --------------------------------------------------------------------------------------------------------------- stages

model=$out/init/model
if [ ! -e "$model/config.json" ]; then
    merges="[\"$data/text/train-*.tar\", \"$data/sentences/train-*.tar\", \"$data/dialogues/train-*.tar\"]"
    voices='["af_heart", "am_michael", "bf_emma", "bm_george"]'
    if [ "$engine" = flite ]; then voices='["flite_slt", "flite_awb", "flite_kal", "flite_kal16"]'; fi
    if [ "$engine" = espeak ]; then voices='["espeak_en-us+f2", "espeak_en-us+m3", "espeak_en+f4", "espeak_en+m1"]'; fi
    thinktalk train init --out "$out/init" --set "size=$size" --set "texts=$merges" --set "voices=$voices" >&2
fi

# hears, sees
stage i1_ears i1_ears 170 "shards=$speech" precision=bf16 batch_seconds=$sound workers=$workers
stage i2_eyes i2_eyes 60 "shards=$seen,$data/videos/train-*.tar@0.3" precision=bf16 tokens=$tokens workers=$workers

# words: a Thinker from nothing learns them first, since a fresh one hands nothing on to its senses
shared language p2_joint 60 "shards=$data/text/train-*.tar@0.2,$data/skills/train-*.tar@0.2,$data/drills/train-*.tar@0.6" learns=thinker precision=bf16 tokens=$tokens speech=0.2 optim.ema=0.998
# and ears write the words that it reads
stage words i1_ears 90 "shards=$speech,$asked" precision=bf16 batch_seconds=$sound workers=$workers ears.words=0.5 augmentation.noise=0.3 augmentation.room=0.15 cache_mb=4000

# codes and back, from ears that write words
stage c1_tokenizer c1_tokenizer 60 "shards=$speech" batch_seconds=$sound workers=$workers weights.agreement=2 optim.lr=7e-4 cache_mb=4000
coded=$data/coded
for folder in sentences robots dialogues; do
    if [ ! -e "$coded/$folder.whole" ]; then
        say "== $coded/$folder"
        mkdir -p "$coded"
        thinktalk data codes "$data/$folder" --model "$model" --device "$device" --out "$coded/$folder" >&2
        touch "$coded/$folder.whole"
    fi
done
said=$coded/sentences/train-*.tar answers=$coded/dialogues/train-*.tar
stage c2_flow c2_flow 90 "shards=$said,$answers" batch_seconds=$sound workers=$workers
# a vocoder keeps 200 MB a second of what it makes
stage c3_vocoder c3_vocoder 240 "shards=$data/sentences/train-*.tar" batch_seconds=$waves optim.lr=1e-3 workers=$workers

# understands
stage p1_align p1_align 10 "shards=$speech@0.5,$media" precision=bf16 tokens=$tokens speech=0.2 length=0.1 optim.lr=3e-4 workers=$workers
shared p2_joint p2_joint 150 guide=0.2 spliced=0.4 length=0.1 encoder_rate=0.5 optim.lr=5e-4 tasks=transcribe,transcribe,repeat,read "shards=${speech//,/@0.3,}@0.3,$media,$talks" precision=bf16 tokens=$tokens speech=0.2 workers=$workers
shared p3_long p3_long 15 "shards=${speech//,/@0.2,}@0.2,$media,$talks" precision=bf16 tokens=8192 recompute=false speech=0.2
stage s1_sft s1_sft 60 "shards=$data/dialogues/train-*.tar,$data/text/train-*.tar@0.5,$media,$speech@0.2" precision=bf16 tokens=$tokens workers=$workers

# the Talker hears e + h: embeddings six times as large, hidden states as small, and the Thinker computes the same
if [ ! -e "$out/balanced/config.json" ]; then thinktalk convert "$model" "$out/balanced" --balance 6 >&2; fi
model=$out/balanced

# speaks: a model that is told which phone is due when learns to say codes in minutes, and says what nobody recorded
told=$data/told replied=$data/replied
distil() {
    if [ -e "$1.whole" ]; then return; fi
    say "== $1"
    thinktalk data distill "$out/k0_acoustic" --out "$@" >&2
    touch "$1.whole"
}
more="" others=""
if [ "$engine" != kokoro ]; then
    say "$engine does not tell its phones in frames of 25 ms: nothing is distilled"
else
    stage k0_acoustic k0_acoustic 12 "shards=$said,$answers" precision=bf16
    distil "$told" --texts $texts --count "$(some 40000)" --seed 51
    distil "$replied" --dialogues "$data"/text/train-*.tar --count "$(some 20000)" --seed 52
    more=",$told/train-*.tar@2.5" others=",$replied/train-*.tar@0.6"
fi
# from that the Talker learns to read unasked, and then to answer
shared k1_reads k1_icl 120 "shards=$said$more" "dialogues=$answers@0.4$others" dialogue_weight=0.8 precision=bf16 guide=0.2 phones=0.5 misheard=0.15 context.bare=0.85 context.spliced=0.2 context.learned=0.8 context.repeat=0 context.lead=0.1
shared k1_icl k1_icl 60 "shards=$said" "dialogues=$answers" precision=bf16 guide=0.2 misheard=0.1 context.spliced=0.2 context.learned=0.8 context.repeat=0.05
few=()
if [ -n "$rehearsal" ]; then few=(mining.prompts=24 mining.samples=4 mining.worst_chosen=100 mining.gap=0.01); fi
stage k2_dpo k2_dpo 30 "shards=$said" "judge=reader:$out/c1_tokenizer" "${few[@]}"
stage k3_speaker k3_speaker 15 "shards=$said" "dialogues=$answers" precision=bf16

# --------------------------------------------------------------------------------------------------------------- packed

say "== $out/model"
if [ ! -e "$model/README.md" ]; then cp runs/nano_card.md "$model/README.md"; fi
thinktalk convert "$model" "$out/model" --pack --overwrite >&2
if [ -n "$ship" ]; then thinktalk convert "$model" thinktalk/pretrained/nano --pack --overwrite >&2; fi
python runs/table.py "${stages[@]}"
say "$((SECONDS - began)) s in all. Try: thinktalk chat --model $out/model --text \"How many legs has a dog?\" --out answer.wav"
