"""Questions with endless answers: small arithmetic, spelling, counting, repeating, and what the user said of himself."""

WORDS = """cat dog house tree water bread apple banana orange lemon table chair window garden flower river mountain ocean island forest school teacher
student doctor friend brother sister mother father morning evening night summer winter spring autumn yellow purple green black white silver golden
music guitar piano dance paint pencil paper letter number answer question coffee sugar butter cheese pepper kitchen bottle button basket bridge castle
church city village country market street train ticket planet rocket engine wheel driver pilot captain soldier queen king prince knight dragon tiger
monkey rabbit horse sheep chicken spider butterfly elephant penguin dolphin computer keyboard screen mouse printer memory kernel thread vector matrix
tensor token model prompt backend context window session history command option setting temperature random program language compiler rust crab hello
world happy angry quick quiet little simple strange beautiful different important together tomorrow yesterday weather thunder rainbow science history
library museum theater picture camera mirror pillow blanket jacket umbrella""".split()
KANA = """ねこ いぬ さくら やま かわ うみ そら つき ほし はな みず たまご りんご みかん すいか ともだち せんせい がっこう えんぴつ とけい くるま でんしゃ
ひこうき ふね いす つくえ まど ドア カメラ テレビ ラジオ パソコン トークン モデル メモリ コマンド オプション うさぎ きつね たぬき くじら ぺんぎん
ひまわり たんぽぽ もみじ ゆき あめ かぜ かみなり にじ おにぎり みそしる らーめん ケーキ チーズ コーヒー バナナ""".split()
NAMES_EN = """Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Maria Nina Oscar Paul Quinn Rosa Sam Tina Uma Victor Wendy Xavier Yuki Zoe Alice
Bob Carol Daniel Eva Frank Gina Hugo Irene John Karl Laura Mark Nora Oliver Peter Rita Simon Thomas Ursula Vera Walter Julia Kevin Lisa Michael Sarah Tom
Ken Aya Taro Hana Jun Mei Omar Fatima Ivan Olga Pierre Marie Lars Ingrid Carlos Lucia""".split()
NAMES_JA = """太郎 花子 一郎 次郎 美咲 健太 翔 葵 陽菜 蓮 結衣 大輔 直樹 恵子 由美 真理 佐藤 鈴木 高橋 田中 伊藤 渡辺 山本 中村 小林 加藤 吉田 山田 佐々木
山口 松本 井上 木村 林 清水 斎藤 森 池田 橋本 石川 前田 藤田 小川 岡田 後藤 さくら ひなた あかり ゆうき はると アンナ ケン マリア トム リサ""".split()
SYLLABLES = "ba be bi bo ca da de do fa fe ga gi ha hi jo ka ke ki ko la le li lo lu ma me mi mo na ne ni no pa pe po ra re ri ro sa se si ta te ti to va ve vi wa ya yo za zu".split()
# What a user may say of himself: (statement, acknowledgement, question, answer, answer when not told) in both languages, and the values.
MEMORY = {
    "name": {
        "en": (["my name is {}", "I am {}", "I'm {}", "call me {}", "my name's {}", "hi, I am {}", "hello, my name is {}", "you can call me {}"],
               "Nice to meet you, {}!", ["what is my name?", "what was my name?", "do you remember my name?", "who am I?", "what's my name?", "what am I called?", "tell me my name", "do you know my name?"],
               "Your name is {}.", "You have not told me your name."),
        "ja": (["私の名前は{}です", "{}です", "{}と言います", "私は{}です", "{}と申します", "名前は{}です", "僕は{}です", "{}と呼んでください"],
               "はじめまして、{}さん。", ["私の名前は?", "私の名前は何でしたか?", "名前を覚えていますか?", "私は誰ですか?", "私の名前を言ってください", "僕の名前は?", "私の名前を覚えてる?"],
               "あなたの名前は{}さんです。", "お名前はまだ聞いていません。"),
    },
    "colour": {
        "en": (["my favourite colour is {}", "my favorite color is {}", "I like the colour {}", "I love {} most of all colours"],
               "I will remember: your favourite colour is {}.", ["what is my favourite colour?", "which colour do I like?", "what was my favorite color?", "what's my favorite color?"],
               "Your favourite colour is {}.", "You have not told me your favourite colour."),
        "ja": (["好きな色は{}です", "私の好きな色は{}です", "{}が一番好きな色です"], "好きな色は{}ですね。覚えておきます。",
               ["私の好きな色は?", "好きな色は何でしたか?", "私の好きな色を覚えていますか?"], "好きな色は{}です。", "好きな色はまだ聞いていません。"),
    },
    "city": {
        "en": (["I live in {}", "my home is in {}", "I am from {}", "I come from {}"], "I will remember that: {}.",
               ["where do I live?", "where am I from?", "which city do I live in?", "what is my home town?"], "You told me: {}.", "You have not told me where you live."),
        "ja": (["{}に住んでいます", "私は{}に住んでいます", "{}から来ました", "出身は{}です"], "{}ですね。覚えておきます。",
               ["私はどこに住んでいますか?", "私の出身は?", "私が住んでいるのはどこ?"], "{}と聞きました。", "どこにお住まいかはまだ聞いていません。"),
    },
    "age": {
        "en": (["I am {} years old", "my age is {}", "I'm {} years old"], "I will remember that you are {}.", ["how old am I?", "what is my age?", "do you remember how old I am?"],
               "You are {} years old.", "You have not told me your age."),
        "ja": (["私は{}歳です", "{}歳です", "年は{}歳です"], "{}歳ですね。覚えておきます。", ["私は何歳ですか?", "私の年は?", "私の年齢を覚えていますか?"], "{}歳です。", "年齢はまだ聞いていません。"),
    },
}
VALUES = {
    ("colour", "en"): "red blue green yellow black white orange purple pink brown grey silver gold turquoise violet".split(),
    ("colour", "ja"): "赤 青 緑 黄色 黒 白 オレンジ 紫 ピンク 茶色 灰色 銀色 金色 水色".split(),
    ("city", "en"): "Tokyo Paris London Berlin Rome Madrid Osaka Kyoto Chicago Boston Lima Oslo Cairo Delhi Seoul Vienna Prague Lisbon Dublin Zurich Nagoya Sapporo".split(),
    ("city", "ja"): "東京 大阪 京都 札幌 福岡 名古屋 仙台 広島 神戸 横浜 那覇 金沢 長野 パリ ロンドン 奈良 新潟 静岡".split(),
}


def coined(rng):
    """A word that is in no list, so that copying has to be learned."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice([2, 2, 3])))


def value(kind, lang, rng):
    if kind == "age":
        return str(rng.randint(5, 99))
    if kind == "name":
        if rng.random() < 0.4:
            return coined(rng).capitalize()
        return rng.choice(NAMES_EN if lang == "en" or rng.random() < 0.1 else NAMES_JA)
    return rng.choice(VALUES[kind, lang])


def typed(text, lang, rng):
    """Case and end of a sentence as people type them; the value inside stays as it is."""
    if lang == "ja":
        return text.rstrip("?") + rng.choice(["?", "?", ""]) if text.endswith("?") else text + rng.choice(["。", "", ""])
    if rng.random() < 0.4:
        text = text[0].upper() + text[1:]
    return text.rstrip("?") if rng.random() < 0.3 else text + ("" if text.endswith("?") else rng.choice([".", "", "", "!"]))


def memory_dialogue(lang, rng, between):
    kind = rng.choices(list(MEMORY), [5, 1, 1, 1])[0]
    says, noted, asks, told, untold = MEMORY[kind][lang]
    if rng.random() < 0.15:
        return between[:1] + [(typed(rng.choice(asks), lang, rng), untold)]
    what = value(kind, lang, rng)
    turns = [(typed(rng.choice(says).format(what), lang, rng), noted.format(what))]
    turns += between
    return turns + [(typed(rng.choice(asks), lang, rng), told.format(what))]


# Arithmetic

OPERATIONS = {
    "+": (["{a} + {b}", "{a}+{b}", "{a} plus {b}", "the sum of {a} and {b}"], ["{a} + {b}", "{a}+{b}", "{a}たす{b}", "{a} 足す {b}", "{a}と{b}の和", "{a}プラス{b}"]),
    "-": (["{a} - {b}", "{a}-{b}", "{a} minus {b}", "{a} take away {b}"], ["{a} - {b}", "{a}-{b}", "{a}ひく{b}", "{a} 引く {b}", "{a}マイナス{b}"]),
    "*": (["{a} * {b}", "{a} x {b}", "{a} times {b}", "{a}*{b}", "{a} multiplied by {b}", "the product of {a} and {b}"], ["{a} * {b}", "{a}×{b}", "{a}かける{b}", "{a} 掛ける {b}", "{a} x {b}"]),
    "/": (["{a} / {b}", "{a}/{b}", "{a} divided by {b}"], ["{a} / {b}", "{a}÷{b}", "{a}わる{b}", "{a} 割る {b}"]),
}
ASK_EN = ["what is {}?", "{}", "{} = ?", "how much is {}?", "calculate {}", "compute {}", "{}?", "what's {}?", "please calculate {}", "can you tell me what {} is?", "{} ="]
ASK_JA = ["{}は?", "{}", "{}はいくつですか?", "{}を計算して", "{}は何ですか?", "{} = ?", "{}?", "{}の答えは?", "{}を計算してください", "{} ="]


def numbers(operation, rng):
    if operation == "*":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        return a, b, a * b
    if operation == "/":
        b, result = rng.randint(1, 12), rng.randint(0, 12)
        return b * result, b, result
    limit = rng.choice([9, 20, 99])
    a, b = rng.randint(0, limit), rng.randint(0, limit)
    if operation == "-":
        a, b = max(a, b), min(a, b)
        return a, b, a - b
    return a, b, a + b


def sentence(a, operation, b, result):
    return f"{a} {operation} {b} = {result}"


def arithmetic(lang, rng):
    operation = rng.choices(list(OPERATIONS), [5, 4, 3, 1])[0]
    a, b, result = numbers(operation, rng)
    form = rng.choice(OPERATIONS[operation][0 if lang == "en" else 1])
    if rng.random() < 0.06:
        a, b = rng.randint(1000, 999_999), rng.randint(100, 999_999)
        answer = "I can only calculate with small numbers." if lang == "en" else "小さな数の計算しかできません。"
    else:
        answer = sentence(a, operation, b, result)
    ask = rng.choice(ASK_EN if lang == "en" else ASK_JA)
    return [(ask.format(form.format(a=a, b=b)), answer)]


CHAIN = {
    "+": (["plus {}?", "and plus {}?", "add {}", "now add {}", "+ {}"], ["それに{}を足すと?", "たす{}は?", "さらに{}足すと?"]),
    "-": (["minus {}?", "and minus {}?", "subtract {}", "now subtract {}", "- {}"], ["そこから{}を引くと?", "ひく{}は?", "さらに{}引くと?"]),
}


def arithmetic_dialogue(lang, rng):
    a, b = rng.randint(0, 40), rng.randint(0, 40)
    turns = [(rng.choice(ASK_EN if lang == "en" else ASK_JA).format(rng.choice(OPERATIONS["+"][0 if lang == "en" else 1]).format(a=a, b=b)), sentence(a, "+", b, a + b))]
    total = a + b
    for _ in range(rng.choice([1, 1, 2])):
        operation = rng.choice("+-")
        step = rng.randint(1, 15)
        if operation == "-" and step > total:
            operation = "+"
        result = total + step if operation == "+" else total - step
        turns.append((rng.choice(CHAIN[operation][0 if lang == "en" else 1]).format(step), sentence(total, operation, step, result)))
        total = result
    return turns


# Words

def spelling(lang, rng):
    if lang == "ja" and rng.random() < 0.5:
        word = rng.choice(KANA)
        ask = rng.choice(["「{}」を一文字ずつ言って", "「{}」を一文字ずつ", "「{}」を分けて書いて", "「{}」を一文字ずつ読んでください", "{}を一文字ずつ言ってください"])
        return [(ask.format(word), "・".join(word))]
    word = coined(rng) if rng.random() < 0.4 else rng.choice(WORDS)
    if lang == "ja":
        ask = rng.choice(["{}のつづりは?", "「{}」のスペルを教えて", "{} の綴りは?", "{}を一文字ずつ言って", "{}のスペルは?"])
    else:
        ask = rng.choice(["spell {}", "how do you spell {}?", "spell the word {}", "please spell {}", 'spell "{}"', "spell out {}", "what are the letters of {}?", "can you spell {}?", "how is {} spelled?"])
    text = ask.format(word)
    return [(text[0].upper() + text[1:] if lang == "en" and rng.random() < 0.5 else text, "-".join(word))]


def counting(lang, rng):
    low, high = 1, rng.randint(2, 20)
    if rng.random() < 0.3:
        low = rng.randint(0, 10)
        high = low + rng.randint(1, 10)
    if lang == "en":
        asks = ["count from {a} to {b}", "please count from {a} to {b}", "can you count from {a} to {b}?"] + (["count to {b}", "count up to {b}", "please count to {b}"] if low == 1 else [])
        text = ", ".join(map(str, range(low, high + 1)))
    else:
        asks = ["{a}から{b}まで数えて", "{a}から{b}まで数えてください"] + (["{b}まで数えて", "{b}まで数えられますか?", "{b}まで数えてください"] if low == 1 else [])
        text = "、".join(map(str, range(low, high + 1)))
    return [(typed(rng.choice(asks).format(a=low, b=high), lang, rng), text)]


def repeating(lang, rng):
    if lang == "ja":
        words = [rng.choice(KANA + NAMES_JA) for _ in range(rng.choice([1, 1, 2]))]
        text = "と".join(words)
        return [(rng.choice(["「{}」と言って", "「{}」と繰り返して", "「{}」と言ってください"]).format(text), text)]
    text = " ".join(coined(rng) if rng.random() < 0.4 else rng.choice(WORDS) for _ in range(rng.choice([1, 2, 2, 3])))
    return [(rng.choice(['say "{}"', "repeat after me: {}", "say: {}", 'please say "{}"', 'repeat the words "{}"', "say the words: {}"]).format(text), text)]


def comparing(lang, rng):
    a, b = rng.sample(range(100), 2)
    larger = rng.random() < 0.7
    answer = max(a, b) if larger else min(a, b)
    if lang == "en":
        word = rng.choice(["larger", "bigger", "greater"] if larger else ["smaller", "less"])
        ask = rng.choice(["which is {w}, {a} or {b}?", "what is {w}: {a} or {b}?", "{a} or {b}, which is {w}?"])
        return [(ask.format(w=word, a=a, b=b), f"{answer} is {'larger' if larger else 'smaller'}.")]
    ask = rng.choice(["{a}と{b}では、どちらが{w}ですか?", "{a}と{b}はどっちが{w}?", "{w}のは{a}と{b}のどちら?"])
    return [(ask.format(w="大きい" if larger else "小さい", a=a, b=b), f"{answer} の方が{'大きい' if larger else '小さい'}です。")]


# (name, weight, maker of one-turn dialogues)
GENERATORS = (("arithmetic", 6.0, arithmetic), ("spelling", 3.0, spelling), ("counting", 1.0, counting), ("repeating", 1.5, repeating), ("comparing", 0.7, comparing))


