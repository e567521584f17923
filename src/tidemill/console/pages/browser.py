"""What the playground does in the browser: reads the box, opens files, shows them before they are sent, draws samples.

JavaScript for elements within one `.question`; runs in the reader's browser.
"""

from __future__ import annotations

WRITTEN = "event => emit(event.target.closest('.question').querySelector('textarea')?.value ?? '')"
ENTER = """event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); emit(event.target.value); }
}"""
# What a chat sends: [what is said, the system prompt, the temperature, the tokens].
_CHAT = """const chat = event.target.closest('.chat');
  const value = name => chat.querySelector(name).value;
  emit([value('[name=say]'), value('[name=system]'),
    ...[...chat.querySelectorAll('input[type=number]')].map(each => each.value)]);"""
SAID = "event => { " + _CHAT + " }"
SAYS = (
    "event => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); "
    + _CHAT
    + " } }"
)
# The end of the conversation stays in sight while it grows, unless its reader looks further up.
FOLLOW = """(() => {
  const talk = document.querySelector('.talk');
  if (!talk) return;
  talk.scrollTop = talk.scrollHeight;
  if (talk.followed) return;
  talk.followed = new MutationObserver(() => {
    if (talk.scrollHeight - talk.scrollTop - talk.clientHeight < 120) talk.scrollTop = talk.scrollHeight;
  });
  talk.followed.observe(talk, {childList: true, subtree: true, characterData: true});
})()"""
OPEN = "event => event.target.closest('.question').querySelector('input[type=file]').click()"
MEASURE = "event => emit([event.target.naturalWidth, event.target.naturalHeight])"
# The file is shown from the browser's own memory while it is on its way.
PREVIEW = """files => {
  const file = files[0];
  const shown = document.querySelector('.question .picture img, .question audio');
  if (shown && file) {
    if (shown.src.startsWith('blob:')) URL.revokeObjectURL(shown.src);
    shown.src = URL.createObjectURL(file);
  }
  emit();
}"""

# A sample is drawn, and then given to the field of files as if it had been opened.
_DRAWN = """event => {
  const field = event.target.closest('.question').querySelector('input[type=file]');
  const canvas = document.createElement('canvas');
  const pen = canvas.getContext('2d');
  %s
  canvas.toBlob(blob => {
    const carried = new DataTransfer();
    carried.items.add(new File([blob], '%s', {type: 'image/png'}));
    field.files = carried.files;
    field.dispatchEvent(new Event('change', {bubbles: true}));
  }, 'image/png');
}"""
RECEIPT = _DRAWN % (
    """canvas.width = 640; canvas.height = 420;
  pen.fillStyle = '#fdfcf7'; pen.fillRect(0, 0, 640, 420);
  pen.fillStyle = '#222'; pen.font = '600 40px sans-serif'; pen.fillText('The Tide Mill', 180, 70);
  pen.font = '32px sans-serif';
  const rows = [['Espresso', '2.40'], ['Croissant', '3.10'], ['Lemon cake', '4.75'], ['Total', '10.25']];
  rows.forEach(([what, price], at) => {
    pen.fillText(what, 60, 160 + at * 66); pen.fillText(price, 480, 160 + at * 66);
  });""",
    "receipt.png",
)
TROUSERS = _DRAWN % (
    """canvas.width = canvas.height = 224;
  pen.fillStyle = '#000'; pen.fillRect(0, 0, 224, 224);
  pen.fillStyle = '#b4b4b4'; pen.fillRect(64, 8, 96, 208);
  pen.fillStyle = '#000'; pen.fillRect(104, 64, 16, 152);""",
    "trousers.png",
)
