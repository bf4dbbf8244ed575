package com.example.lesion

import com.example.lesion.core.Signals
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import org.tensorflow.lite.Interpreter

/** An engine on LiteRT; one thread at a time uses it. Normalization is inside the engine. */
class LiteRt(model: ByteArray) : AutoCloseable {
    private val interpreter =
        Interpreter(directBuffer(model), Interpreter.Options().setNumThreads(2))

    /** Returns the outputs for RGB bytes [S, S, 3]. */
    fun infer(input: ByteArray): Signals {
        val outputs = List(interpreter.outputTensorCount) {
            FloatBuffer.allocate(interpreter.getOutputTensor(it).numElements())
        }
        val byIndex = outputs.indices.associateWith<Int, Any> { outputs[it] }
        interpreter.runForMultipleInputsOutputs(arrayOf<Any>(directBuffer(input)), byIndex)
        val (features, logits) = List(2) { outputs.getOrNull(it + 1)?.array() ?: FloatArray(0) }
        return Signals(outputs[0].array(), features, logits)
    }

    override fun close() = interpreter.close()

    private fun directBuffer(bytes: ByteArray): ByteBuffer {
        val buffer = ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder())
        buffer.put(bytes).rewind()
        return buffer
    }
}
