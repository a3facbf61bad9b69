/** Dark or light: as the system says, until the button is pressed. */
export function followTheme(button) {
  button.onclick = () => {
    const dark = matchMedia('(prefers-color-scheme: dark)').matches
    const now = document.documentElement.dataset.theme ?? (dark ? 'dark' : 'light')
    document.documentElement.dataset.theme = now === 'dark' ? 'light' : 'dark'
  }
}
