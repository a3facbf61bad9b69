/** A 5 x 7 pixel font for labels: looks the same everywhere and needs no font on the machine. */

/** Of a character cell in font pixels; glyphs are 5 wide and 7 high, with 2 rows below for g, j, p, q, y. */
export const cell = { width: 6, height: 9 }

// Per character from space to "~": one base-32 digit per row, its bits the pixels from left (16) to right (1).
const glyphs = (
  '0000000 4444404 aaa0000 aavavaa 4fke5u4 op248j3 cik8lid 4480000 2488842 8422248 04lel40 044v440 0000c48 000v000 00000cc 01248g0 ' +
  'ehjlphe 4c4444e eh1248v v2421he 26aiv22 vgu11he 68guhhe v124888 ehhehhe ehhf12c 0cc0cc0 0cc0c48 248g842 00v0v00 8421248 eh12404 ' +
  'eh1dlle ehhhvhh uhhuhhu ehggghe sihhhis vgguggv vgguggg ehgnhhf hhhvhhh e44444e 72222ic hikokih ggggggv hrllhhh hhpljhh ehhhhhe ' +
  'uhhuggg ehhhlid uhhukih fgge11u v444444 hhhhhhe hhhhha4 hhhllla hha4ahh hhha444 v1248gv e88888e 0g84210 e22222e 4ah0000 000000v ' +
  '8420000 00e1fhf ggmphhu 00egghe 11djhhf 00ehvge 698s888 00fhhhf1e ggmphhh 40c444e 2062222ic ggikoki c44444e 00qllhh 00mphhh 00ehhhe ' +
  '00uhhhugg 00fhhhf11 00mpggg 00ege1u 88s8896 00hhhjd 00hhha4 00hhlla 00ha4ah 00hhhhf1e 00v248v 2448442 4444444 8442448 008l200'
).split(' ')

/** Whether every character has a glyph. */
export const canDraw = (text: string): boolean => /^[ -~]*$/.test(text)

/** An SVG path of the text with its top left corner at (x, y), `scale` pixels per font pixel. */
export function textPath(text: string, x: number, y: number, scale: number): string {
  let path = ''
  for (const [i, char] of Array.from(text).entries()) {
    const rows = glyphs[char.charCodeAt(0) - 32] ?? ''
    for (const [row, digit] of Array.from(rows).entries()) {
      const bits = parseInt(digit, 32)
      for (let column = 0; column < 5; column++) {
        let run = 0
        while (column + run < 5 && bits & (16 >> (column + run))) run++
        if (run === 0) continue
        path += `M${x + (i * cell.width + column) * scale} ${y + row * scale}h${run * scale}v${scale}h${-run * scale}z`
        column += run
      }
    }
  }
  return path
}
