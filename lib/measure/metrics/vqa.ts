/** VQA accuracy with the normalization of its official evaluation (https://visualqa.org/evaluation.html). */

const punctuation = [...';/[]"{}()=+\\_->', ...'<@`,?!']
const numbers = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten']
const digits = new Map([['none', '0'], ...numbers.map((word, i) => [word, String(i)] as const)])
const articles = new Set(['a', 'an', 'the'])

// Words whose apostrophe people leave out; of several in a word, any one.
const contractions = new Map(
  (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't " +
    "he'd he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am mightn't mightn't've " +
    "might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't " +
    "shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's " +
    "something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've " +
    "they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd " +
    "where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't " +
    "wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
  )
    .split(' ')
    .flatMap((word) =>
      [...word.matchAll(/'/g)].map(({ index }) => [word.slice(0, index) + word.slice(index + 1), word] as const)
    )
)

/** Lower case, without punctuation and articles, numbers as digits. */
export function normalizeAnswer(answer: string): string {
  const text = answer.replace(/[\n\t]/g, ' ').trim()
  let bare = text
  for (const mark of punctuation) {
    const between = text.includes(`${mark} `) || text.includes(` ${mark}`) || /\d,\d/.test(text)
    bare = bare.replaceAll(mark, between ? '' : ' ')
  }
  return bare
    .replace(/\.(?!\d)/g, '')
    .toLowerCase()
    .split(/\s+/)
    .map((word) => digits.get(word) ?? word)
    .filter((word) => word !== '' && !articles.has(word))
    .map((word) => contractions.get(word) ?? word)
    .join(' ')
}

/**
 * 0..1: for each person the others that agree, three of whom are enough; the mean of that. Of fewer than four answers
 * one that agrees is enough.
 */
export function vqaAccuracy(prediction: string, answers: readonly string[]): number {
  const own = normalizeAnswer(prediction)
  const agree = answers.map((answer) => normalizeAnswer(answer) === own)
  const all = agree.filter(Boolean).length
  if (answers.length < 4) return Number(all > 0)
  const scores = agree.map((one) => Math.min(1, (all - Number(one)) / 3))
  return scores.reduce((sum, score) => sum + score, 0) / scores.length
}
