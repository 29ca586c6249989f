# A formula that builds from a source archive: `git archive --prefix=rustorch-cli-0.1.0/ -o rustorch-cli-0.1.0.tar.gz v0.1.0`.
# Before it goes into a tap: the place of that archive for @SOURCE_URL@, its SHA-256 for @SHA256@, the project's page for @HOMEPAGE@.
class RustorchCli < Formula
  desc "Chat with a local language model: private, offline, fast"
  homepage "@HOMEPAGE@"
  url "@SOURCE_URL@"
  sha256 "@SHA256@"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args(path: "crates/rustorch-cli")
    (man1/"rustorch-cli.1").write Utils.safe_popen_read(bin/"rustorch-cli", "man", "--language", "en")
    generate_completions_from_executable(bin/"rustorch-cli", "completions")
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/rustorch-cli --version")
    answer = shell_output("#{bin}/rustorch-cli --model demo --ephemeral --prompt 'How do I save this conversation?'")
    assert_match "/save", answer
  end
end
