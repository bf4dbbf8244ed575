package com.example.lesion

import android.Manifest
import android.os.Bundle
import android.util.Size
import android.widget.Button
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.core.resolutionselector.ResolutionStrategy
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import com.example.lesion.core.Classifier
import com.example.lesion.core.Pixels
import java.util.concurrent.Executors
import java.util.concurrent.atomic.AtomicBoolean

/** The camera's square, a button, and the answer to the frame that follows it. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor() // engine and frames, one at a time
    private val wanted = AtomicBoolean(false)
    private var classifier: Classifier? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        findViewById<Button>(R.id.classify).setOnClickListener { wanted.set(true) }
        val permission = registerForActivityResult(ActivityResultContracts.RequestPermission()) {
            if (it) startCamera() else show(getString(R.string.no_permission))
        }
        worker.execute {
            try {
                val opened = openClassifier(this)
                classifier = opened
                val contract = opened.contract
                show(getString(R.string.ready), "${contract.name}\n${contract.notice}")
                runOnUiThread { permission.launch(Manifest.permission.CAMERA) }
            } catch (error: Exception) { // no answer from a device that computes otherwise
                show("${getString(R.string.no_engine)} ${error.message}")
            }
        }
    }

    override fun onDestroy() {
        super.onDestroy()
        worker.shutdown()
    }

    private fun startCamera() {
        val future = ProcessCameraProvider.getInstance(this)
        future.addListener({
            val preview = Preview.Builder().build()
            preview.setSurfaceProvider(findViewById<PreviewView>(R.id.preview).surfaceProvider)
            val strategy = ResolutionStrategy(
                Size(1280, 960), ResolutionStrategy.FALLBACK_RULE_CLOSEST_HIGHER_THEN_LOWER,
            )
            val analysis = ImageAnalysis.Builder()
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .setOutputImageRotationEnabled(true)
                .setResolutionSelector(
                    ResolutionSelector.Builder().setResolutionStrategy(strategy).build(),
                )
                .build()
            analysis.setAnalyzer(worker, ::answer)
            try {
                val camera = CameraSelector.DEFAULT_BACK_CAMERA
                future.get().bindToLifecycle(this, camera, preview, analysis)
                findViewById<Button>(R.id.classify).isEnabled = true
            } catch (error: IllegalArgumentException) {
                show(getString(R.string.no_camera))
            }
        }, ContextCompat.getMainExecutor(this))
    }

    private fun answer(frame: ImageProxy) = frame.use {
        val opened = classifier
        if (opened == null || !wanted.compareAndSet(true, false)) return@use
        val plane = it.planes[0]
        val bytes = ByteArray(plane.buffer.remaining())
        plane.buffer.get(bytes)
        try {
            val answer = opened.classify(Pixels(it.width, it.height, plane.rowStride, bytes))
            show(describe(answer, opened.contract.operatingPoint))
        } catch (error: IllegalStateException) {
            show("${getString(R.string.no_engine)} ${error.message}")
        }
    }

    private fun show(result: String, notice: String? = null) = runOnUiThread {
        findViewById<TextView>(R.id.result).text = result
        if (notice != null) findViewById<TextView>(R.id.notice).text = notice
    }
}
