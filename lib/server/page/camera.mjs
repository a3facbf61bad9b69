/** Live mode: the newest frame is asked about when the last answer is there; frames in between are never sent. */

export class Camera {
  #stream
  #run = 0

  constructor(video) {
    this.video = video
  }

  get on() {
    return this.#stream !== undefined
  }

  async start() {
    const size = { width: { ideal: 1280 }, height: { ideal: 720 } }
    this.#stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', ...size } })
    this.video.srcObject = this.#stream
    await this.video.play()
  }

  stop() {
    this.#run++
    for (const track of this.#stream?.getTracks() ?? []) track.stop()
    this.#stream = undefined
    this.video.srcObject = null
  }

  /** The frame of this moment. */
  async frame() {
    const { videoWidth: width, videoHeight: height } = this.video
    const canvas = new OffscreenCanvas(width, height)
    canvas.getContext('2d').drawImage(this.video, 0, 0)
    const blob = await canvas.convertToBlob({ type: 'image/jpeg', quality: 0.9 })
    return new File([blob], 'camera.jpg', { type: 'image/jpeg' })
  }

  /** Calls `look` again and again until the camera stops; the function that it gets takes the frame of the moment. */
  async watch(look) {
    const run = ++this.#run
    while (this.on && run === this.#run) {
      await look(async () => await this.frame())
      // hidden pages are not asked to draw, and look at nothing
      await new Promise((resolve) => requestAnimationFrame(resolve))
    }
  }
}
