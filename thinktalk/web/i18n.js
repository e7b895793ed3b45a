// The page's words in English and Chinese: elements carry data-i18n (text), data-i18n-label or data-i18n-placeholder.

const WORDS = {
  en: {
    skip: "Skip to writing", export: "Export", settings: "Settings", conversation: "Conversation", signals: "Signals",
    empty: "Say something, or write. Drop a picture, sound or video anywhere.", preview: "What your camera or screen shows",
    you: "You", voice: "Voice", latency: "What you waited for", stage_end: "turn end", stage_word: "first word",
    stage_sound: "first sound", stage_play: "loudspeaker", attached: "Attached files", microphone: "Microphone",
    handsFree: "Hands-free", hold: "Hold", micHold: "Hold to speak",
    micHelp: "In hold mode keep the button or the space bar pressed while you speak. Escape interrupts.",
    interrupt: "Interrupt", camera: "Camera", screen: "Screen", attach: "Attach", write: "Write a message", send: "Send",
    drop: "Drop it here", replies: "Replies", spokenReplies: "spoken", writtenReplies: "written", turns: "Your turn ends",
    bySilence: "after a silence", byMeaning: "when the sentence is complete", instructions: "Instructions",
    enrol: "A voice of your own", enrolHelp: "Five to fifteen seconds of one person, with that person's consent.",
    name: "Name", record: "Record", recordStop: "Stop", chooseClip: "Choose a file", forget: "Delete this voice",
    language: "Language", theme: "Colours", themeAuto: "as the system", themeLight: "light", themeDark: "dark",
    key: "API key", close: "Close", exportHelp: "Nothing leaves this page but what you save.", soundFile: "Sound (WAV)",
    newConversation: "New conversation", state_off: "not connected", state_joining: "connecting", state_on: "connected",
    state_lost: "connection lost, trying again", listening: "listening", hearing: "hearing you", speaking: "speaking",
    thinking: "thinking", call: "Function call", cutNote: "interrupted", failedNote: "failed", spokenNote: "(spoken)",
    remove: "Remove {0}", experimental: "experimental", noMicrophone: "The microphone cannot be used: {0}",
    noCamera: "The camera or screen cannot be used: {0}", microphoneLost: "The microphone was taken away.",
    fileKind: "{0}: only pictures, sounds and videos can be attached.", fileBroken: "{0}: the browser cannot read it.",
    fileLong: "{0}: longer than three minutes.", fileLarge: "{0}: larger than 12 MB.", noServer: "The server does not answer: {0}",
    full: "The server has no room now; try again in a moment.",
    needKey: "The server wants an API key; give it in the settings.", enrolling: "The voice is being learnt …",
    enrolled: "{0} is there.", needName: "Give the voice a name first (letters, digits, - and _).",
    short: "Too short: five seconds at least.", forgotten: "{0} is deleted.", refused: "Not sent: not connected.",
  },
  zh: {
    skip: "跳到输入框", export: "导出", settings: "设置", conversation: "对话", signals: "信号",
    empty: "请说话或输入文字。图片、声音、视频可拖到任意位置。", preview: "摄像头或屏幕的画面",
    you: "你", voice: "声音", latency: "等待时间", stage_end: "话轮结束", stage_word: "首个文字",
    stage_sound: "首个声音", stage_play: "扬声器", attached: "附件", microphone: "麦克风",
    handsFree: "免提", hold: "按住", micHold: "按住说话",
    micHelp: "按住模式下，说话时请按住此按钮或空格键。按 Esc 打断。",
    interrupt: "打断", camera: "摄像头", screen: "屏幕", attach: "附件", write: "输入消息", send: "发送",
    drop: "拖到这里", replies: "回复", spokenReplies: "语音", writtenReplies: "文字", turns: "何时轮到对方",
    bySilence: "停顿之后", byMeaning: "句意完整时", instructions: "指令",
    enrol: "自己的声音", enrolHelp: "一个人五到十五秒的录音，须经本人同意。",
    name: "名称", record: "录音", recordStop: "停止", chooseClip: "选择文件", forget: "删除此声音",
    language: "语言", theme: "颜色", themeAuto: "跟随系统", themeLight: "浅色", themeDark: "深色",
    key: "API 密钥", close: "关闭", exportHelp: "除了你保存的内容，没有任何东西离开此页面。", soundFile: "声音 (WAV)",
    newConversation: "新对话", state_off: "未连接", state_joining: "正在连接", state_on: "已连接",
    state_lost: "连接中断，正在重试", listening: "正在听", hearing: "听到你说话", speaking: "正在说",
    thinking: "正在想", call: "函数调用", cutNote: "被打断", failedNote: "失败", spokenNote: "（语音）",
    remove: "移除 {0}", experimental: "实验性", noMicrophone: "无法使用麦克风：{0}",
    noCamera: "无法使用摄像头或屏幕：{0}", microphoneLost: "麦克风已断开。",
    fileKind: "{0}：只能附加图片、声音和视频。", fileBroken: "{0}：浏览器无法读取。",
    fileLong: "{0}：超过三分钟。", fileLarge: "{0}：超过 12 MB。", noServer: "服务器没有应答：{0}",
    full: "服务器暂时没有空位，请稍后再试。",
    needKey: "服务器需要 API 密钥，请在设置中填写。", enrolling: "正在学习这个声音……",
    enrolled: "{0} 已可使用。", needName: "请先给声音起名（字母、数字、- 和 _）。",
    short: "太短：至少五秒。", forgotten: "{0} 已删除。", refused: "未发送：没有连接。",
  },
};

let language = "en";

export const languages = Object.keys(WORDS);

/** A word of the page; {0}, {1}, ... are filled in. */
export function word(key, ...values) {
  return (WORDS[language][key] ?? key).replace(/\{(\d)\}/g, (_, n) => values[n]);
}

/** The whole page in another language. */
export function speak(chosen) {
  language = languages.includes(chosen) ? chosen : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-i18n]")) element.textContent = word(element.dataset.i18n);
  for (const element of document.querySelectorAll("[data-i18n-label]")) {
    element.setAttribute("aria-label", word(element.dataset.i18nLabel));
  }
  for (const element of document.querySelectorAll("[data-i18n-placeholder]")) {
    element.placeholder = word(element.dataset.i18nPlaceholder);
  }
}

/** The language that fits the browser. */
export const preferred = () => (navigator.languages.find((l) => /^(en|zh)/.test(l)) ?? "en").slice(0, 2);
