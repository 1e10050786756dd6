//! A request of any dialect, in full: what translation carries from one to another. What a dialect cannot say of it is
//! refused by the dialect that writes, by the name that the hub gives it.

/// A conversation and how it is to be continued.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) turns: Vec<Turn>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Option<Choice>,
    /// Whether several tools may be called in one turn.
    pub(crate) parallel: Option<bool>,
    pub(crate) sampling: Sampling,
    pub(crate) stop: Vec<String>,
    pub(crate) format: Format,
    pub(crate) reasoning: Option<Reasoning>,
    /// Who asks, in the client's words.
    pub(crate) user: Option<String>,
}

/// What one side says before the other has its turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) parts: Vec<Part>,
}

/// Whose turn it is. What a tool answers is the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
}

/// A part of a turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Media(Media),
    ToolUse(ToolUse),
    ToolResult {
        id: String,
        parts: Vec<Part>,
        is_error: bool,
    },
    Thinking {
        text: String,
        signature: Option<String>,
    },
    /// Thinking that only its vendor can read.
    Redacted(String),
    Refusal(String),
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToolUse {
    pub(crate) id: String,
    pub(crate) name: String,
    /// A JSON object, as it was written.
    pub(crate) input: String,
    /// What Gemini wants to see again with its call.
    pub(crate) signature: Option<String>,
}

/// A picture, a document or a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Media {
    pub(crate) kind: Kind,
    pub(crate) source: Source,
    /// A file's name.
    pub(crate) name: Option<String>,
}

/// What a piece of media is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    Document,
    Audio,
}

/// Where a piece of media is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Elsewhere; its media type, if it was named.
    Url { url: String, mime: Option<String> },
    /// Here, in base64.
    Inline { mime: String, data: String },
}

impl Source {
    /// Reads a URL, which may be one that carries its data.
    pub(crate) fn of_url(url: String) -> Self {
        let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
        match inline {
            Some((mime, data)) => Self::Inline { mime: mime.to_owned(), data: data.to_owned() },
            None => Self::Url { url, mime: None },
        }
    }

    /// Writes it as a URL.
    pub(crate) fn to_url(&self) -> String {
        match self {
            Self::Url { url, .. } => url.clone(),
            Self::Inline { mime, data } => format!("data:{mime};base64,{data}"),
        }
    }
}

/// A function that the model may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// A JSON schema, as it was written.
    pub(crate) schema: Option<String>,
    pub(crate) strict: Option<bool>,
}

/// Whether and which tools are to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Auto,
    None,
    /// At least one, of any of these; of all where none is named.
    Any(Vec<String>),
}

/// How the next token is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sampling {
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) top_k: Option<i64>,
    pub(crate) seed: Option<i64>,
    pub(crate) presence_penalty: Option<f64>,
    pub(crate) frequency_penalty: Option<f64>,
}

/// The form of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    /// Any JSON object.
    Json,
    /// JSON of a schema, as it was written.
    Schema { name: Option<String>, schema: String, strict: Option<bool> },
}

/// How much the model thinks before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasoning {
    pub(crate) how: Thinking,
    /// Whether the client wants to see the thoughts.
    pub(crate) is_shown: Option<bool>,
}

/// An amount of thinking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Thinking {
    /// As the model likes.
    #[default]
    Free,
    Off,
    /// So many tokens at most.
    Budget(u64),
    Effort(Effort),
}

/// A word for an amount of thinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    Extra,
}

impl Effort {
    /// Reads the word; `max` is Anthropic's, `xhigh` OpenAI's.
    pub(crate) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "minimal" => Self::Minimal,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "xhigh" | "max" => Self::Extra,
            _ => return None,
        })
    }

    /// OpenAI's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Extra => "xhigh",
        }
    }

    /// The tokens that the word stands for.
    ///
    /// Source: ai.google.dev, OpenAI compatibility, table of `reasoning_effort`; from memory, the page was not opened.
    pub(crate) fn budget(self) -> u64 {
        match self {
            Self::Minimal | Self::Low => 1_024,
            Self::Medium => 8_192,
            Self::High => 24_576,
            Self::Extra => 32_768,
        }
    }

    /// The word for so many tokens.
    pub(crate) fn of_budget(tokens: u64) -> Self {
        match tokens {
            0..=1_024 => Self::Low,
            1_025..=8_192 => Self::Medium,
            8_193..=24_576 => Self::High,
            _ => Self::Extra,
        }
    }
}

impl Request {
    /// Adds a part to the last turn where that is of the same role, else to a new one.
    pub(crate) fn say(&mut self, role: Role, part: Part) {
        match self.turns.last_mut() {
            Some(turn) if turn.role == role => turn.parts.push(part),
            _ => self.turns.push(Turn { role, parts: vec![part] }),
        }
    }

    /// The name of the tool that a call of this id was for: the last such call counts.
    pub(crate) fn tool_of(&self, id: &str) -> Option<&str> {
        let parts = self.turns.iter().rev().flat_map(|turn| turn.parts.iter().rev());
        parts.into_iter().find_map(|part| match part {
            Part::ToolUse(call) if call.id == id => Some(call.name.as_str()),
            _ => None,
        })
    }

    /// The tools that may be called, where the client named some of them.
    pub(crate) fn allowed_tools(&self) -> impl Iterator<Item = &Tool> {
        let named: &[String] = match &self.choice {
            Some(Choice::Any(names)) => names,
            _ => &[],
        };
        self.tools.iter().filter(move |tool| named.len() < 2 || named.contains(&tool.name))
    }
}
