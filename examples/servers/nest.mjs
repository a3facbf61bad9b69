// NestJS, without a compiler: MODEL=... PORT=3000 node nest.mjs. In TypeScript the decorators stand before the classes.
import 'reflect-metadata'
import { Controller, HttpCode, Module, Post, Req } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { loadModel } from 'node-paligemma'

const MODEL = Symbol('a PaliGemma')

class CaptionController {
  constructor(model) {
    this.model = model
  }

  async caption(request) {
    const gone = new AbortController()
    request.res.on('close', () => gone.abort())
    // the picture is the request's body, as it comes
    return (await this.model.generate({ image: request, prompt: 'caption en', signal: gone.signal })).text
  }

  // Nest calls it when the application closes
  async onModuleDestroy() {
    await this.model.dispose()
  }
}
const method = Object.getOwnPropertyDescriptor(CaptionController.prototype, 'caption')
Req()(CaptionController.prototype, 'caption', 0)
Post('caption')(CaptionController.prototype, 'caption', method)
HttpCode(200)(CaptionController.prototype, 'caption', method)
Controller()(CaptionController)
Reflect.defineMetadata('self:paramtypes', [{ index: 0, param: MODEL }], CaptionController)

class AppModule {}
Module({
  controllers: [CaptionController],
  providers: [{ provide: MODEL, useFactory: async () => await loadModel(process.env.MODEL) }]
})(AppModule)

const app = await NestFactory.create(AppModule, { bodyParser: false, logger: ['error', 'warn'] })
app.enableShutdownHooks()
await app.listen(process.env.PORT ?? 3000)
