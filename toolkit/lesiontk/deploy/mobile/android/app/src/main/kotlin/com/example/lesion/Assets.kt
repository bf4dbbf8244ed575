package com.example.lesion

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import com.example.lesion.core.Classifier
import com.example.lesion.core.Contract
import com.example.lesion.core.Pixels
import java.nio.ByteBuffer

/** Opens the bundle in the app's assets. Throws an error unless the self-test passes. */
fun openClassifier(context: Context): Classifier {
    val read = { name: String -> context.assets.open(name).use { it.readBytes() } }
    val contract = Contract(read("bundle.json").decodeToString())
    return Classifier(read, LiteRt(read(contract.engineFile))::infer).also { it.selfTest(::decode) }
}

/** Returns the pixels of a PNG or JPEG file. */
fun decode(file: ByteArray): Pixels {
    val options = BitmapFactory.Options().apply { inPreferredConfig = Bitmap.Config.ARGB_8888 }
    val bitmap = checkNotNull(BitmapFactory.decodeByteArray(file, 0, file.size, options)) {
        "A picture of ${file.size} bytes cannot be decoded."
    }
    val bytes = ByteBuffer.allocate(bitmap.byteCount) // red, green, blue, alpha, whatever its name
    bitmap.copyPixelsToBuffer(bytes)
    return Pixels(bitmap.width, bitmap.height, bitmap.rowBytes, bytes.array())
}
