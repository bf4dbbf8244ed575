package com.example.lesion

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import com.example.lesion.core.Classifier
import com.example.lesion.core.Contract
import com.example.lesion.core.Signals
import org.junit.Assert.assertThrows
import org.junit.Test
import org.junit.runner.RunWith

/** The device's crop, resize, engine and input checks against the desktop's. */
@RunWith(AndroidJUnit4::class)
class GoldenTest {
    private val context = InstrumentationRegistry.getInstrumentation().targetContext

    @Test
    fun theDeviceAnswersAsTheDesktopDoes() {
        openClassifier(context)
    }

    @Test
    fun anEngineThatAnswersOtherwiseIsRefused() {
        val read = { name: String -> context.assets.open(name).use { it.readBytes() } }
        val engine = LiteRt(read(Contract(read("bundle.json").decodeToString()).engineFile))
        val damaged = Classifier(read) { input ->
            val signals = engine.infer(input)
            Signals(signals.probabilities.reversedArray(), signals.features, signals.logits)
        }
        assertThrows(IllegalStateException::class.java) { damaged.selfTest(::decode) }
    }
}
