//! The sentences of the REPL, English and Japanese.

use crate::messages::messages;

messages! {
    /// Stdin failed.
    cannot_read_input() { "cannot read the input", "入力を読み込めません" }
    /// A line that is not text.
    line_not_text(number) { "line {number} of the input is not UTF-8 text; it was skipped", "入力の {number} 行目は UTF-8 ではないため飛ばしました" }
    /// The first words of a session.
    banner(model, context, backend) {
        "{model} · context {context} tokens · {backend} · /help lists the commands",
        "{model} · コンテキスト {context} トークン · {backend} · /help でコマンド一覧"
    }
    /// Ctrl-C on an empty line.
    press_again() { "(Ctrl-C again or /exit ends the program)", "(もう一度 Ctrl-C、または /exit で終了します)" }
    /// A history was loaded.
    loaded(path, messages, turns) {
        "loaded {path}: {messages} messages, {turns} turns",
        "{path} を読み込みました: {messages} 件のメッセージ、{turns} 回のやり取り"
    }
    /// It was imported.
    imported() { "imported from a list of messages", "メッセージの一覧から取り込みました" }
    /// How many tokens a conversation takes.
    loaded_tokens(used, context) { "{used} of {context} tokens", "{context} トークン中 {used}" }
    /// The system prompt of a file.
    loaded_system() { "its system prompt is in effect (/system shows it)", "ファイルのシステムプロンプトが有効です(/system で表示)" }
    /// The file names another model.
    loaded_other_model(theirs) { "it was held with another model, {theirs}", "別のモデル {theirs} との会話です" }
    /// The same model with another template.
    loaded_other_template() { "it was held with another chat template", "別のチャットテンプレートでの会話です" }
    /// Settings of the file.
    loaded_params(params) { "its settings: {params} (/load FILE --with-params uses them)", "ファイルの設定: {params}(/load ファイル --with-params で適用)" }
    /// A setting of the file that does not fit.
    bad_param(key) { "the file's value for {key} cannot be used", "ファイルの {key} の値は使えません" }
    /// It does not fit in the window.
    loaded_too_long() { "it does not fit in the context window", "コンテキストに収まりません" }
    /// The template failed.
    cannot_render() { "the chat template cannot render this conversation", "チャットテンプレートでこの会話を表現できません" }
    /// What to do about a template that refuses.
    cannot_render_hint() { "/undo or /clear changes the conversation; --template NAME|FILE uses another template", "/undo や /clear で会話を変えるか、--template で別のテンプレートを指定してください" }
    /// A generation failed.
    generation_failed() { "the answer could not be generated", "回答を生成できませんでした" }
    /// The question comes back.
    draft_hint() { "nothing was lost: your message is on the line again", "発言は失われていません。入力行に戻しました" }
    /// The message alone is too long.
    too_long(need, context) {
        "the system prompt and this message need {need} tokens, the context window holds {context}",
        "システムプロンプトとこの発言だけで {need} トークン必要です。コンテキストは {context} トークンです"
    }
    /// The conversation is too long.
    overflow(need, reserve, context) {
        "the context window is full: {need} tokens and {reserve} for the answer, of {context}",
        "コンテキストが一杯です: {need} トークン + 回答用 {reserve}、上限 {context}"
    }
    /// Turns that would leave.
    leaving(count) { "to go on, the {count} oldest turns leave the window (they stay in the history file):", "続けるには、古い {count} 回のやり取りをコンテキストから外します(履歴ファイルには残ります):" }
    /// One turn.
    leaving_turn(number, tokens, text) { "  {number}. {text} ({tokens} tokens)", "  {number}. {text}({tokens} トークン)" }
    /// The choice.
    overflow_choice() { "[d]rop them and send, [c]ancel? ", "[d] 外して送信、[c] 取り消し ? " }
    /// What to do about it where nobody can be asked.
    overflow_hint() { "/clear begins anew, /undo takes back turns, --overflow shift lets old turns leave, --ctx N makes the window larger", "/clear で新しい会話、/undo で取り消し、--overflow shift で古い発言を自動的に外す、--ctx N でコンテキストを拡大できます" }
    /// The user cancelled.
    not_sent() { "the message was not sent", "発言は送信されませんでした" }
    /// Progress of prefill.
    reading_prompt() { "reading", "読み込み中" }
    /// The answer was cut by max_tokens.
    cut_by_length(limit) { "[stopped at max_tokens = {limit}; /continue goes on]", "[max_tokens = {limit} で停止。/continue で続行]" }
    /// The answer was cut by the window.
    cut_by_context(context) { "[the context window of {context} tokens is full; /continue goes on after older turns leave]", "[コンテキスト({context} トークン)が一杯です。古いやり取りを外すと /continue で続行できます]" }
    /// The answer was interrupted.
    cut_by_interrupt() { "[interrupted; /continue goes on]", "[中断しました。/continue で続行]" }
    /// Interrupted before the first token.
    nothing_generated() { "[interrupted before the first token; the message is on the line again]", "[最初のトークンの前に中断しました。発言を入力行に戻しました]" }
    /// An empty answer.
    empty_answer() { "[the model ended its answer at once]", "[モデルは何も出力せず終了しました]" }
    /// A model was loaded.
    now_using(model, seconds) { "now using {model} (loaded in {seconds} s); the conversation is read again at the next turn", "{model} に切り替えました({seconds} 秒)。次の発言で会話を読み直します" }
    /// Memory holds only one model.
    old_goes_first() { "both models do not fit into memory; unloading the old one first", "両方のモデルはメモリに収まりません。先に元のモデルを解放します" }
    /// The new one failed.
    old_is_back() { "the old model was loaded again", "元のモデルを読み込み直しました" }
    /// Both failed.
    no_model_now(why) { "the old model could not be loaded again either ({why}); /model FILE loads one", "元のモデルも読み込み直せませんでした({why})。/model FILE で読み込んでください" }
    /// The old model stays.
    old_stays() { "the model in use stays as it was", "現在のモデルをそのまま使います" }
    /// The new model's template takes no system prompt.
    no_system_role() { "the chat template of this model takes no system prompt", "このモデルのチャットテンプレートはシステムプロンプトに対応していません" }
    /// The saved file at the end.
    kept_in(path) { "saved to {path}", "{path} に保存しました" }
    /// A turn of the ledger.
    ledger_head(used, context, left) { "{used} of {context} tokens used, {left} left", "{context} トークン中 {used} 使用、残り {left}" }
    /// The system prompt in the ledger.
    ledger_system(tokens) { "  system prompt      {tokens}", "  システムプロンプト {tokens}" }
    /// The turns in the ledger.
    ledger_turn(number, tokens, text) { "  turn {number:<3} {tokens:>9}  {text}", "  発言 {number:<3} {tokens:>9}  {text}" }
    /// The scaffold in the ledger.
    ledger_template(tokens) { "  template           {tokens}", "  テンプレート       {tokens}" }
    /// What is cached.
    ledger_cached(tokens) { "  cached             {tokens} of these need no computing at the next turn", "  キャッシュ済み     {tokens}(次の発言で計算不要)" }
    /// What is kept free.
    ledger_reserve(tokens) { "  reserve            {tokens} kept free for the next answer", "  予約               {tokens}(次の回答用)" }
    /// What left the window.
    ledger_out(count) { "  out of context     {count} messages (in the history file only)", "  コンテキスト外     {count} 件(履歴ファイルにのみ存在)" }
    /// What leaves next.
    ledger_next(number) { "  next to leave      turn {number}", "  次に外れる         発言 {number}" }
    /// Last turn: tokens.
    stats_last(prompt, cached, completion, ttft) {
        "last turn   {prompt} tokens in ({cached} cached), {completion} out; first token after {ttft} s",
        "直近の回答  入力 {prompt} トークン(うちキャッシュ {cached})、出力 {completion}。最初のトークンまで {ttft} 秒"
    }
    /// Last turn: rates.
    stats_rates(prefill, decode, seed) {
        "            prefill {prefill} tokens/s, decode {decode} tokens/s; seed {seed}",
        "            プロンプト処理 {prefill} トークン/秒、生成 {decode} トークン/秒、シード {seed}"
    }
    /// Last turn: tokens guessed ahead.
    stats_guesses(drafted, accepted, share) {
        "            guessed ahead {drafted} tokens, {accepted} came true ({share} %)",
        "            先読み {drafted} トークン、的中 {accepted}({share} %)"
    }
    /// Last turn: times of single tokens.
    stats_token_times(p50, p95) {
        "            per token {p50} ms median, {p95} ms p95",
        "            1 トークンあたり 中央値 {p50} ms、p95 {p95} ms"
    }
    /// No turn yet.
    stats_none() { "last turn   none yet", "直近の回答  まだありません" }
    /// The session.
    stats_session(turns, prompt, cached, completion) {
        "session     {turns} turns, {prompt} tokens in ({cached} cached), {completion} out",
        "セッション  {turns} 回、入力 {prompt} トークン(うちキャッシュ {cached})、出力 {completion}"
    }
    /// The window.
    stats_context(used, left, size) {
        "context     {used} used, {left} left of {size}",
        "コンテキスト {size} 中 {used} 使用、残り {left}"
    }
    /// The model.
    stats_model(model, size, seconds) {
        "model       {model} ({size}), loaded in {seconds} s",
        "モデル      {model}({size})、読み込み {seconds} 秒"
    }
    /// The device.
    stats_device(backend, isa, threads) {
        "runs on     {backend}, {isa}, {threads} threads",
        "実行環境    {backend}、{isa}、{threads} スレッド"
    }
    /// What the model takes.
    stats_memory(weights, kv, scratch) {
        "memory      weights {weights}, KV cache {kv}, buffers {scratch}",
        "メモリ      重み {weights}、KV キャッシュ {kv}、作業領域 {scratch}"
    }
    /// Adapters.
    stats_adapters(n, bytes) { "adapters    {n}, {bytes}", "アダプタ    {n} 個、{bytes}" }
    /// Saved prefixes.
    stats_prefixes(saved, bytes, hits, tokens) {
        "prefixes    {saved} saved in {bytes}; {hits} hits, {tokens} tokens not read again",
        "プレフィックス {saved} 件を保持({bytes})。ヒット {hits} 回、{tokens} トークンを再計算せず"
    }
    /// Those of them that count.
    stats_prefix_budget(used, budget) {
        "            beside the current conversation {used} of {budget} (--prefix-cache)",
        "            現在の会話以外 {used}、上限 {budget}(--prefix-cache)"
    }
    /// What the process takes.
    stats_resident(now, share) {
        "            resident {now} = {share} x model (goal: at most 1.5)",
        "            常駐 {now} = モデルの {share} 倍(目標 1.5 倍以内)"
    }
    /// What it took at most.
    stats_peak(peak, share) {
        "            peak {peak} = {share} x model (goal: at most 2)",
        "            最大 {peak} = モデルの {share} 倍(目標 2 倍以内)"
    }
    /// Progress of prefill, behind the bar.
    progress_prefill(bar, position, length, eta) { "{bar} {position}/{length} tokens, {eta} left", "{bar} {position}/{length} トークン、残り {eta}" }
    /// Progress of an answer that is not streamed.
    progress_answer(tokens, rate) { "answering: {tokens} tokens, {rate} tokens/s", "生成中: {tokens} トークン、{rate} トークン/秒" }
}
